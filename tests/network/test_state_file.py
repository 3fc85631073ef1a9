"""Files that a node keeps between its runs: whole or not at all, read within a cap."""

from __future__ import annotations

import logging
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from moderntensor.errors import StorageError
from moderntensor.network import state_file

_WRITER = """
import sys
from pathlib import Path
from moderntensor.network.state_file import write_atomically

path, size = Path(sys.argv[1]), int(sys.argv[2])
print("writing", flush=True)
turn = 0
while True:
    turn = (turn + 1) % 256
    write_atomically(path, bytes([turn]) * size)
"""


def test_what_is_written_is_read_and_is_private(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    assert state_file.read_capped(path, 10) is None
    for data in (b"first", b"", b"0123456789"):
        state_file.write_atomically(path, data)
        assert state_file.read_capped(path, 10) == data
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(StorageError, match="larger than 9 bytes"):
        state_file.read_capped(path, 9)


def test_a_draft_that_a_killed_process_left_is_no_hindrance(tmp_path: Path) -> None:
    path, outside = tmp_path / "state.json", tmp_path / "outside"
    outside.write_bytes(b"mine")
    (tmp_path / ".state.json.new").symlink_to(outside)
    state_file.write_atomically(path, b"new")
    assert path.read_bytes() == b"new"
    assert outside.read_bytes() == b"mine"


@pytest.mark.parametrize("wait", [0.0, 0.002, 0.005, 0.011])
def test_a_writer_that_is_killed_leaves_one_whole_file(tmp_path: Path, wait: float) -> None:
    path, size = tmp_path / "state.json", 1 << 20
    with subprocess.Popen(
        [sys.executable, "-c", _WRITER, str(path), str(size)], stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"writing\n"
        while not path.exists():
            assert process.poll() is None
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(wait)
        process.send_signal(signal.SIGKILL)
    data = state_file.read_capped(path, size)
    assert data is not None
    assert data == data[:1] * size


def test_what_cannot_be_written_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="No such file"):
        state_file.write_atomically(tmp_path / "missing" / "state.json", b"x")
    with pytest.raises(StorageError, match="directory"):
        state_file.read_capped(tmp_path, 10)


def _refuse(data: bytes) -> str:
    if data != b"good":
        raise StorageError("this is not good")
    return "loaded"


def test_a_damaged_file_is_set_aside(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "state.json"
    with caplog.at_level(logging.WARNING):
        assert state_file.load(path, 10, _refuse) is None
        path.write_bytes(b"good")
        assert state_file.load(path, 10, _refuse) == "loaded"
        assert not caplog.records
        for damaged in (b"bad", b"longer than the cap"):
            path.write_bytes(damaged)
            assert state_file.load(path, 10, _refuse) is None
            assert not path.exists()
            assert (tmp_path / "state.json.bad").read_bytes() == damaged
    first, second = (record.getMessage() for record in caplog.records)
    assert "this is not good" in first
    assert "larger than 10 bytes" in second


def test_a_file_that_cannot_even_be_set_aside_is_not_fatal(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "state.json"
    path.write_bytes(b"bad")
    blocked = tmp_path / "state.json.bad"
    blocked.mkdir()
    (blocked / "file").touch()
    with caplog.at_level(logging.WARNING):
        assert state_file.load(path, 10, _refuse) is None
    assert "nor set it aside" in caplog.text
    assert path.read_bytes() == b"bad"
