"""`moderntensor.blockchain`: the names that users import, loaded when they are used."""

from __future__ import annotations

import subprocess
import sys

import pytest

from moderntensor import blockchain


def test_every_name_is_there() -> None:
    for name in blockchain.__all__:
        assert getattr(blockchain, name) is not None
    assert set(blockchain.__all__) <= set(dir(blockchain))
    assert set(blockchain.__all__) == set(blockchain._HOMES)


def test_other_names_are_not() -> None:
    with pytest.raises(AttributeError, match=r"'moderntensor\.blockchain' has no attribute 'Coin'"):
        _ = blockchain.Coin


def test_importing_the_chain_loads_nothing_else() -> None:
    code = (
        "import sys, moderntensor.blockchain as b; b.keccak256(b'');"
        "print(*sorted(m for m in sys.modules if m.startswith('moderntensor.')), sep=' ')"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    loaded = {name.removeprefix("moderntensor.") for name in result.stdout.split()}
    above = {name for name in loaded if name.split(".")[0] not in ("_ext", "_pure", "backend")}
    assert above <= {"_version", "blockchain", "blockchain.crypto", "errors", "runtime"}
