"""A sync over lines between network namespaces, where those are permitted."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks.namespaces import __main__ as program
from benchmarks.namespaces import measure
from benchmarks.namespaces.star import Lines, NotPermittedError, Star, require
from benchmarks.namespaces.streams import probe


@pytest.fixture
def permitted() -> Iterator[None]:
    """Skips where there is no root, no `ip`, no TUN device, no iperf3."""
    try:
        require("iperf3")
        with Star(1, Lines()):
            pass
    except NotPermittedError as error:
        pytest.skip(str(error))
    yield


@pytest.mark.usefixtures("permitted")
@pytest.mark.long
def test_sync_over_lossy_lines_beside_iperf3(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measure, "TRANSFERS", 1)
    lines = Lines(delay=0.02, jitter=0.005, loss=0.02)
    found = measure.measure(
        lines,
        peers=1,
        size=0,
        congestion=["reno"],
        rounds=1,
        seconds=1,
        probes=100,
        cache=tmp_path,
        transport="secure",
        emulator=None,
    )
    (run,) = found["congestion"]["reno"]["turns"]
    assert run["iperf3"]["rate"] > 0 and run["iperf3"]["congestion"] == "reno"
    assert run["sync"]["bytes"] > found["transactions"] * measure.DATA_BYTES
    assert run["sync"]["peers"] == 1
    assert found["probe"]["least"] >= lines.delay - lines.jitter
    assert any("sync / iperf3" in line for line in program.told(found))


@pytest.mark.usefixtures("permitted")
@pytest.mark.parametrize(("ordered", "overtaken"), [(True, False), (False, True)])
@pytest.mark.long
def test_emulated_line_loses_and_reorders_as_told(ordered: bool, overtaken: bool) -> None:
    lines = Lines(delay=0.02, jitter=0.02, loss=0.25, rate=0, ordered=ordered)
    with Star(1, lines, emulator=True) as star:
        found = probe(star, 100)
    (counts,) = star.counts.values()
    assert counts["offered"] == 100  # what comes back is what was counted here
    assert counts["lost"] == round(100 * found["lost"]) > 10
    assert (found["overtaken"] > 0) is overtaken


def test_says_what_is_missing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    monkeypatch.setattr("sys.argv", ["namespaces", "--quick"])
    result: Any = program.main()
    assert result == 0
    assert "skipped: network namespaces" in capsys.readouterr().out
