"""The node's key: made once, kept private, the same after a restart."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from moderntensor.errors import ConfigError
from moderntensor.network.identity import NodeIdentity
from moderntensor.runtime import Runtime

# RFC 7748, section 6.1: Alice's keys.
SECRET = "77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a"  # noqa: S105 - published
PUBLIC = "8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a"


def test_node_id_is_the_public_key_of_rfc_7748() -> None:
    identity = NodeIdentity(bytes.fromhex(SECRET))
    assert identity.node_id.hex() == PUBLIC
    assert SECRET[:8] not in repr(identity)


def test_first_run_creates_a_private_file_that_the_second_reads(tmp_path: Path) -> None:
    path = tmp_path / "node.key"
    first = NodeIdentity.load(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert NodeIdentity.load(path).node_id == first.node_id
    assert [entry.name for entry in tmp_path.iterdir()] == ["node.key"]


def test_identities_differ_and_come_from_the_runtime() -> None:
    class Fixed(Runtime):
        def entropy(self, size: int) -> bytes:
            return b"\x07" * size

    assert NodeIdentity.generate().node_id != NodeIdentity.generate().node_id
    assert NodeIdentity.generate(Fixed()).node_id == NodeIdentity(b"\x07" * 32).node_id


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o777])
def test_a_key_that_others_may_read_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "node.key"
    NodeIdentity.load(path)
    path.chmod(mode)
    with pytest.raises(ConfigError, match="readable by others"):
        NodeIdentity.load(path)


@pytest.mark.parametrize("text", ["", "zz" * 32, "ab" * 31, "ab" * 33, "\xe9" * 64])
def test_a_file_without_a_key_is_refused_and_left_alone(tmp_path: Path, text: str) -> None:
    path = tmp_path / "node.key"
    path.write_text(text, encoding="utf-8")
    path.chmod(0o600)
    with pytest.raises(ConfigError, match="64 hex digits"):
        NodeIdentity.load(path)
    assert path.read_text(encoding="utf-8") == text


def test_a_path_that_cannot_be_used_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"node key .*No such file"):
        NodeIdentity.load(tmp_path / "missing" / "node.key")
    with pytest.raises(ConfigError, match="node key"):
        NodeIdentity.load(tmp_path)
    (tmp_path / "round").symlink_to(tmp_path / "round")
    with pytest.raises(ConfigError, match=r"node key .*symbolic links"):
        NodeIdentity.load(tmp_path / "round")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match=r"node key .*No such file"):
        NodeIdentity.load(tmp_path / "dangling")
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["dangling", "round"]


def test_what_is_no_regular_file_is_refused_without_waiting_for_it(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="not a regular file"):
        NodeIdentity.load(tmp_path)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe, 0o600)
    with pytest.raises(ConfigError, match="not a regular file"):
        NodeIdentity.load(pipe)


def test_a_link_leads_to_the_key_and_to_its_mode(tmp_path: Path) -> None:
    """As where secrets are mounted."""
    path, link = tmp_path / "node.key", tmp_path / "link"
    first = NodeIdentity.load(path)
    link.symlink_to(path)
    assert NodeIdentity.load(link).node_id == first.node_id
    path.chmod(0o644)
    with pytest.raises(ConfigError, match="readable by others"):
        NodeIdentity.load(link)


def test_a_key_that_belongs_to_another_user_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "node.key"
    NodeIdentity.load(path)
    user = os.geteuid()
    if user == 0:
        os.chown(path, 12345, -1)
    else:
        monkeypatch.setattr(os, "geteuid", lambda: user + 1)
    with pytest.raises(ConfigError, match=r"belongs to user \d+, but this node runs as user \d+"):
        NodeIdentity.load(path)


def test_what_a_killed_process_of_our_pid_left_is_not_in_the_way(tmp_path: Path) -> None:
    """In a container every first process has the same one."""
    (tmp_path / f".node.key.{os.getpid()}").write_text("half a k", encoding="ascii")
    identity = NodeIdentity.load(tmp_path / "node.key")
    assert NodeIdentity.load(tmp_path / "node.key").node_id == identity.node_id


def test_processes_that_start_at_once_have_one_key(tmp_path: Path) -> None:
    code = (
        "import sys; from moderntensor.network.identity import NodeIdentity;"
        "sys.stdin.read(1); print(NodeIdentity.load(sys.argv[1]).node_id.hex())"
    )
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path / "node.key")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(3)
    ]
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("g")
        process.stdin.flush()
    ids = {process.communicate(timeout=30)[0].strip() for process in processes}
    assert ids == {NodeIdentity.load(tmp_path / "node.key").node_id.hex()}
    assert [entry.name for entry in tmp_path.iterdir()] == ["node.key"]


def test_threads_that_start_at_once_have_one_key(tmp_path: Path) -> None:
    path, barrier = tmp_path / "node.key", threading.Barrier(8)

    def load(_: int) -> bytes:
        barrier.wait(10)
        return NodeIdentity.load(path).node_id

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(load, range(8))) == {NodeIdentity.load(path).node_id}
    assert [entry.name for entry in tmp_path.iterdir()] == ["node.key"]
