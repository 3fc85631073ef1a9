"""What other programs get over the same lines: UDP packets one by one, and iperf3."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Final

from benchmarks.namespaces.star import ROOT, NotPermittedError, Star

_END_SECONDS: Final = 30.0


@contextmanager
def _running(star: Star, name: str, *command: str) -> Iterator[subprocess.Popen[str]]:
    """A command in a namespace, ended at the end of the `with` block."""
    with subprocess.Popen(
        [*star.within(name), *command],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def _result(process: subprocess.Popen[str], seconds: float) -> dict[str, Any]:
    said, _ = process.communicate(timeout=seconds)
    return dict(json.loads(said))


def _listening(server: subprocess.Popen[str]) -> None:
    """Wait until iperf3 says that it listens."""
    assert server.stdout is not None
    while "listening" not in (line := server.stdout.readline()):
        if not line:
            raise NotPermittedError("iperf3 does not serve here")


def probe(star: Star, count: int) -> dict[str, Any]:
    """Round trips over the first line."""
    module = (sys.executable, "-m", "benchmarks.namespaces.probe")
    host = star.addresses[1]
    with _running(star, star.names[1], *module, json.dumps({"host": host})) as echo:
        assert echo.stdout is not None
        echo.stdout.readline()
        asked = json.dumps({"host": host, "count": count})
        with _running(star, star.names[0], *module, asked) as process:
            return _result(process, _END_SECONDS)


def iperf(star: Star, seconds: int, streams: int | None = None) -> dict[str, Any]:
    """Payload that iperf3 brings from so many servers to the middle, one stream from each, all at
    the same time: bytes a second at the receiver, in all and of each."""
    count = len(star.names) - 1 if streams is None else streams
    with ExitStack() as stack:
        for name in star.names[1 : count + 1]:
            server = _running(star, name, "iperf3", "--server", "--one-off", "--forceflush")
            _listening(stack.enter_context(server))
        clients = [
            stack.enter_context(
                _running(
                    star,
                    star.names[0],
                    *("iperf3", "--client", address, "--reverse", "--json"),
                    *("--time", str(seconds)),
                )
            )
            for address in star.addresses[1 : count + 1]
        ]
        ends = [_result(client, seconds + _END_SECONDS)["end"] for client in clients]
    rates = [end["sum_received"]["bits_per_second"] / 8 for end in ends]
    return {
        "seconds": seconds,
        "streams": count,
        "rate": sum(rates),
        "rates": rates,
        "congestion": ends[0].get("sender_tcp_congestion"),
        "resent": sum(end["sum_sent"].get("retransmits", 0) for end in ends),
    }
