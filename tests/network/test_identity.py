"""The node's key: made once, kept private, the same after a restart."""

from __future__ import annotations

import stat
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
