"""A star of network namespaces: one in the middle, the others behind lines of their own.

The lines are `tc netem` where the kernel has it, otherwise `emulator.py`. Nothing of this is left
behind at the end of the `with` block.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Self

from benchmarks.namespaces.emulator import DEVICE

ROOT: Final = Path(__file__).resolve().parent.parent.parent
NETWORK: Final = "10.77.0"
_BURST: Final = 16 * 1024  # bytes that the token bucket passes at once
_END_SECONDS: Final = 10.0


class NotPermittedError(Exception):
    """What is missing here for namespaces and lines, in a sentence."""


@dataclass(frozen=True, slots=True)
class Lines:
    """What every line is like. Seconds, chances, bits a second and bytes.

    Delay and loss are put on the way towards the middle, where the data of a download goes: a
    round trip meets them once.
    """

    delay: float = 0.100
    jitter: float = 0.020
    loss: float = 0.01
    rate: int = 20_000_000
    """Of the middle's downlink, which all lines share; 0: no bound."""
    queue: int = 256 * 1024
    """Before that downlink: its bandwidth and a round trip's worth."""
    ordered: bool = False
    """Whether jitter keeps packets in order. netem lets them overtake each other."""
    seed: int = 1


def run(*command: str) -> str:
    """What a command says; NotPermittedError with its own words where it fails."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise NotPermittedError(f"`{' '.join(command)}` says: {done.stderr.strip()}")
    return done.stdout


def require(*tools: str) -> None:
    """Raises NotPermittedError unless namespaces can be had here, and these programs."""
    if sys.platform != "linux":
        raise NotPermittedError("network namespaces are Linux's")
    if os.geteuid() != 0:
        raise NotPermittedError("network namespaces and their lines need root")
    for tool in ("ip", "tc", "sysctl", *tools):
        if shutil.which(tool) is None:
            raise NotPermittedError(f"`{tool}` is not installed")


class Star:
    """`count` namespaces around a middle one; `addresses[0]` is the middle's."""

    def __init__(self, count: int, lines: Lines, *, emulator: bool | None = None) -> None:
        """`emulator`: whether to do without netem; None: where the kernel has none.

        Raises NotPermittedError, here or in the `with` statement.
        """
        require()
        self.lines = lines
        self.names = [f"mt-{os.getpid()}-{i}" for i in range(count + 1)]
        self.addresses = [f"{NETWORK}.{i + 1}" for i in range(count + 1)]
        self.counts: dict[str, Any] = {}
        """By address, once the star is gone: what the emulator has carried."""
        self._switch = f"mt-{os.getpid()}-switch"
        self._wanted = emulator
        self.emulated = True
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        try:
            for name in (*self.names, self._switch):
                run("ip", "netns", "add", name)
                self._stack.callback(run, "ip", "netns", "del", name)
                self.inside(name, "ip", "link", "set", "lo", "up")
            self.emulated = not self._has_netem() if self._wanted is None else self._wanted
            if self.emulated:
                self._emulate()
            else:
                self._switched()
            for name, address in zip(self.names, self.addresses, strict=True):
                self.inside(name, "ip", "address", "add", f"{address}/24", "dev", DEVICE)
                self.inside(name, "ip", "link", "set", DEVICE, "up")
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @staticmethod
    def within(name: str) -> tuple[str, ...]:
        """What to put before a command to run it in a namespace."""
        return ("ip", "netns", "exec", name)

    def inside(self, name: str, *command: str) -> str:
        """What a command says in a namespace."""
        return run(*self.within(name), *command)

    def congestion(self, name: str) -> None:
        """The congestion control of every connection that is made from now on."""
        for namespace in self.names:
            self.inside(namespace, "sysctl", "-qw", f"net.ipv4.tcp_congestion_control={name}")

    # --- lines of the kernel ---------------------------------------------------------------

    def _has_netem(self) -> bool:
        try:
            self.inside(self._switch, "tc", "qdisc", "add", "dev", "lo", "root", "netem")
        except NotPermittedError:
            return False
        self.inside(self._switch, "tc", "qdisc", "del", "dev", "lo", "root")
        return True

    def _switched(self) -> None:
        """A bridge in a namespace of its own; netem at the servers' ends, the bound on the rate
        at the bridge's end of the middle's line."""
        lines, switch = self.lines, self._switch
        if lines.ordered:
            raise NotPermittedError("netem lets packets overtake each other: use the emulator")
        self.inside(switch, "ip", "link", "add", "switch", "type", "bridge")
        self.inside(switch, "ip", "link", "set", "switch", "up")
        for i, name in enumerate(self.names):
            port = f"port{i}"
            pair = ("type", "veth", "peer", "name", DEVICE, "netns", name)
            self.inside(switch, "ip", "link", "add", port, *pair)
            self.inside(switch, "ip", "link", "set", port, "master", "switch", "up")
            # Lost and delayed are packets as they are on a line, not 64 KiB at a time.
            for place, device in ((switch, port), (name, DEVICE)):
                self.inside(place, "ip", "link", "set", device, "gso_max_segs", "1")
            if i and (lines.delay or lines.loss):
                self._qdisc(
                    name,
                    DEVICE,
                    *("netem", "delay", f"{lines.delay * 1000}ms", f"{lines.jitter * 1000}ms"),
                    *("loss", f"{lines.loss * 100}%"),
                )
        if lines.rate:
            bound = ("rate", f"{lines.rate}bit", "burst", f"{_BURST}b", "limit", f"{lines.queue}b")
            self._qdisc(switch, "port0", "tbf", *bound)

    def _qdisc(self, name: str, device: str, *kind: str) -> None:
        self.inside(name, "tc", "qdisc", "add", "dev", device, "root", *kind)

    # --- lines of our own ------------------------------------------------------------------

    def _emulate(self) -> None:
        if not os.access("/dev/net/tun", os.R_OK | os.W_OK):
            raise NotPermittedError("the kernel has no netem, and /dev/net/tun cannot be opened")
        setup = {"namespaces": self.names, "addresses": self.addresses, **asdict(self.lines)}
        process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.namespaces.emulator", json.dumps(setup)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            process_group=0,  # Ctrl-C is ours to pass on, as the end of stdin
        )
        self._stack.callback(self._end, process)
        assert process.stdout is not None
        if not process.stdout.readline():
            raise NotPermittedError("the line emulator could not open its devices")

    def _end(self, process: subprocess.Popen[str]) -> None:
        try:
            said, _ = process.communicate(timeout=_END_SECONDS)
            self.counts = json.loads(said or "{}")
        finally:
            process.kill()
            process.wait()
