"""Key files: private, never overwritten, and clear about what is wrong with them."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest

from moderntensor.blockchain.crypto import KeyPair
from moderntensor.blockchain.key_files import KEY_FILE_CAP, load_key, save_key
from moderntensor.errors import ConfigError

KEY = KeyPair.from_secret(b"\x2a" * 32)


def private(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    path.chmod(0o600)
    return path


def test_a_saved_key_is_loaded_and_private(tmp_path: Path) -> None:
    path = tmp_path / "validator.key"
    save_key(path, KEY)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert load_key(path) == KEY
    assert load_key(str(path)).secret == KEY.secret


def test_a_key_is_private_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        save_key(tmp_path / "validator.key", KEY)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "validator.key").stat().st_mode) == 0o600


def test_a_key_is_never_overwritten(tmp_path: Path) -> None:
    path = private(tmp_path / "validator.key", "precious")
    with pytest.raises(ConfigError, match=r"validator\.key: exists"):
        save_key(path, KEY)
    assert path.read_text() == "precious"


@pytest.mark.parametrize("prefix", ["", "0x", "  "])
def test_a_bare_secret_in_hex_is_a_key_file(tmp_path: Path, prefix: str) -> None:
    path = private(tmp_path / "hex.key", prefix + KEY.secret.hex() + "\n")
    assert load_key(path) == KEY


@pytest.mark.skipif(os.name != "posix", reason="file modes")
@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o644, 0o601])
def test_a_key_that_others_may_touch_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "open.key"
    save_key(path, KEY)
    path.chmod(mode)
    with pytest.raises(ConfigError, match=r"open\.key.*chmod 600"):
        load_key(path)


@pytest.mark.parametrize(
    ("content", "what"),
    [
        ("", "secret is not 64 hex digits"),
        ("zz" * 32, "secret is not 64 hex digits"),
        ("ab" * 31, "secret is not 64 hex digits"),
        ("00" * 32, "a secret key is in 1"),
        ("{", "neither JSON nor hex"),
        (b"\xff\xfe", "neither JSON nor hex"),
        ("{}", "format is not"),
        ('{"format": "moderntensor/key/2"}', "format is not"),
        ('{"format": "moderntensor/key/1"}', "secret is not 64 hex digits"),
        ('{"format": "moderntensor/key/1", "secret": 7}', "secret is not 64 hex digits"),
        ('{"format":' + "[" * 3000, "neither JSON nor hex"),
        ("11" * KEY_FILE_CAP, "over 4096 bytes"),
    ],
)
def test_what_is_no_key_file_is_named(tmp_path: Path, content: str | bytes, what: str) -> None:
    path = private(tmp_path / "bad.key", content)
    with pytest.raises(ConfigError) as caught:
        load_key(path)
    assert str(caught.value).startswith(f"key file {path}: ")
    assert what in str(caught.value)


@pytest.mark.parametrize("field", ["public_key", "address"])
def test_a_claim_that_does_not_fit_the_secret_is_refused(tmp_path: Path, field: str) -> None:
    save_key(tmp_path / "a.key", KEY)
    document = json.loads((tmp_path / "a.key").read_text())
    document[field] = "00" * 20
    path = private(tmp_path / "b.key", json.dumps(document))
    with pytest.raises(ConfigError, match=f"{field} is not the one of its secret"):
        load_key(path)


def test_an_error_does_not_quote_the_secret(tmp_path: Path) -> None:
    path = private(tmp_path / "cut.key", '{"secret": "' + KEY.secret.hex())
    with pytest.raises(ConfigError) as caught:
        load_key(path)
    assert KEY.secret.hex() not in str(caught.value)


def test_missing_and_unwritable_places_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.key: No such file"):
        load_key(tmp_path / "none.key")
    with pytest.raises(ConfigError, match=r"none/a\.key: No such file"):
        save_key(tmp_path / "none" / "a.key", KEY)
    with pytest.raises(ConfigError, match=str(tmp_path)):
        load_key(tmp_path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="named pipes")
def test_a_named_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.key", 0o600)
    with pytest.raises(ConfigError, match=r"pipe\.key: not a regular file"):
        load_key(tmp_path / "pipe.key")
