"""Genesis files: what they fix, and clear words about what is wrong with them."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moderntensor.blockchain import genesis
from moderntensor.blockchain.crypto import KeyPair
from moderntensor.blockchain.genesis import ChainConfig
from moderntensor.errors import ConfigError

KEYS = [KeyPair.from_secret(bytes([n]) * 32) for n in (1, 2, 3)]
A, B, C = (key.public_key for key in KEYS)
ADDRESS = KEYS[0].address
BASE: dict[str, Any] = {
    "chain_id": 7,
    "timestamp": 1_700_000_000,
    "validators": (A, B),
    "alloc": {ADDRESS: 100},
}


def config(**changes: Any) -> ChainConfig:
    return ChainConfig(**(BASE | changes))


def document(**changes: Any) -> str:
    return json.dumps(json.loads(config().to_json()) | changes)


# --- what the genesis hash fixes -----------------------------------------------------------


def test_the_genesis_header() -> None:
    header = config().genesis_header
    assert (header.version, header.height, header.timestamp) == (1, 0, 1_700_000_000)
    assert header.previous_hash == header.validator == bytes(32)
    assert header.txs_root == header.receipts_root == bytes(32)
    assert header.signature == bytes(64)
    assert (header.gas_used, header.gas_limit) == (0, 30_000_000)
    assert header.verify_signature() is False
    assert config().genesis_block.transactions == ()


@pytest.mark.parametrize(
    "changes",
    [
        {"chain_id": 8},
        {"timestamp": 1_700_000_001},
        {"block_time": 13},
        {"gas_limit": 30_000_001},
        {"snapshot_interval": 1025},
        {"validators": ()},
        {"validators": (B, A)},
        {"validators": (A, B, C)},
        {"alloc": {}},
        {"alloc": {ADDRESS: 101}},
        {"alloc": {KEYS[1].address: 100}},
        {"alloc": {ADDRESS: 100, KEYS[1].address: 1}},
    ],
    ids=str,
)
def test_the_hash_fixes_the_rules(changes: dict[str, Any]) -> None:
    assert config(**changes).genesis_hash != config().genesis_hash
    assert config(**changes) != config()


def test_the_hash_leaves_out_what_is_this_nodes_own_choice() -> None:
    other = config(checkpoints={5: bytes(32)}, max_reorg_depth=3)
    assert other.genesis_hash == config().genesis_hash
    assert other != config()


def test_the_order_of_alloc_does_not_matter() -> None:
    pairs = [(key.address, n + 1) for n, key in enumerate(KEYS)]
    assert config(alloc=dict(pairs)).genesis_hash == config(alloc=dict(pairs[::-1])).genesis_hash


def test_a_config_cannot_be_changed() -> None:
    mine = {ADDRESS: 1}
    fixed = config(alloc=mine)
    mine[ADDRESS] = 2
    assert fixed.alloc[ADDRESS] == 1
    with pytest.raises(TypeError):
        fixed.alloc[ADDRESS] = 2  # type: ignore[index]
    with pytest.raises(AttributeError):
        fixed.chain_id = 8  # type: ignore[misc]


# --- what follows from it ------------------------------------------------------------------


def test_slots() -> None:
    fixed = config(validators=(A, B, C))
    assert [fixed.slot_of(1_700_000_000 + n) for n in (-1, 0, 11, 12, 23, 24)] == [
        -1,
        0,
        0,
        1,
        1,
        2,
    ]
    assert [fixed.validator_at(n) for n in range(5)] == [A, B, C, A, B]
    assert config(validators=()).validator_at(3) is None


def test_the_rules_that_the_engine_gets() -> None:
    rules = config(checkpoints={9: b"\x09" * 32}).rules
    assert (rules.genesis_timestamp, rules.block_time, rules.gas_limit) == (
        1_700_000_000,
        12,
        30_000_000,
    )
    assert tuple(rules.validators) == (A, B)
    assert dict(rules.checkpoints) == {9: b"\x09" * 32}
    assert rules.max_drift == 15


# --- values that cannot be -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"chain_id": 0}, "chain_id"),
        ({"chain_id": 2**64}, "chain_id"),
        ({"chain_id": True}, "chain_id"),
        ({"chain_id": "7"}, "chain_id"),
        ({"timestamp": -1}, "timestamp"),
        ({"timestamp": 1.5}, "timestamp"),
        ({"block_time": 0}, "block_time"),
        ({"block_time": 2**32}, "block_time"),
        ({"gas_limit": 20_999}, "gas_limit"),
        ({"snapshot_interval": 0}, "snapshot_interval"),
        ({"max_reorg_depth": 0}, "max_reorg_depth"),
        ({"validators": (A, b"\x05" * 31)}, "validators[1]"),
        ({"validators": (A, bytes(32))}, "validators[1]"),
        ({"validators": (A, B, A)}, "validators[2]"),
        ({"validators": ("x",)}, "validators[0]"),
        ({"alloc": {ADDRESS: 0}}, f"alloc.0x{ADDRESS.hex()}"),
        ({"alloc": {ADDRESS: -1}}, f"alloc.0x{ADDRESS.hex()}"),
        ({"alloc": {ADDRESS: 2**128}}, f"alloc.0x{ADDRESS.hex()}"),
        ({"alloc": {ADDRESS: 2**127, KEYS[1].address: 2**127}}, "alloc"),
        ({"alloc": {ADDRESS[:19]: 1}}, f"alloc.0x{ADDRESS[:19].hex()}"),
        ({"alloc": {"x": 1}}, "alloc.'x'"),
        ({"checkpoints": {-1: bytes(32)}}, "checkpoints.-1"),
        ({"checkpoints": {1: bytes(31)}}, "checkpoints.1"),
        ({"checkpoints": {0: bytes(32)}}, "checkpoints.0"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_values_out_of_range_are_named(changes: dict[str, Any], field: str) -> None:
    with pytest.raises(ConfigError) as caught:
        config(**changes)
    assert str(caught.value).startswith(f"{field}: ")


def test_the_whole_supply_may_be_one_account() -> None:
    assert config(alloc={ADDRESS: 2**128 - 1}).genesis_header.state_root != bytes(32)


def test_a_checkpoint_of_the_genesis_must_be_it() -> None:
    assert config(checkpoints={0: config().genesis_hash}).checkpoints


def test_the_number_of_validators_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(genesis, "MAX_VALIDATORS", 2)
    assert config(validators=(A, B))
    with pytest.raises(ConfigError, match="validators: more than 2"):
        config(validators=(A, B, C))


# --- files ---------------------------------------------------------------------------------


@given(
    st.builds(
        ChainConfig,
        chain_id=st.integers(1, 2**64 - 1),
        timestamp=st.integers(0, 2**64 - 1),
        block_time=st.integers(1, 2**32 - 1),
        gas_limit=st.integers(21_000, 2**64 - 1),
        snapshot_interval=st.integers(1, 2**32 - 1),
        validators=st.lists(st.sampled_from([A, B, C]), unique=True).map(tuple),
        alloc=st.dictionaries(
            st.binary(min_size=20, max_size=20), st.integers(1, 2**120), max_size=20
        ),
        checkpoints=st.dictionaries(
            st.integers(1, 2**64 - 1), st.binary(min_size=32, max_size=32), max_size=4
        ),
        max_reorg_depth=st.integers(1, 2**32 - 1),
    )
)
def test_json_comes_back_as_it_was(value: ChainConfig) -> None:
    again = ChainConfig.from_json(value.to_json())
    assert again == value
    assert hash(again) == hash(value)
    assert again.genesis_hash == value.genesis_hash
    assert pickle.loads(pickle.dumps(value)) == value  # noqa: S301


def test_files_come_back_as_they_were(tmp_path: Path) -> None:
    path = tmp_path / "genesis.json"
    config().save(path)
    assert ChainConfig.load(path) == ChainConfig.load(str(path)) == config()
    with pytest.raises(ConfigError, match=r"genesis\.json: exists and is not overwritten"):
        config(chain_id=8).save(path)
    assert ChainConfig.load(path) == config()


def test_the_short_way_to_write_one() -> None:
    text = f'{{"chain_id": 7, "timestamp": 5, "alloc": {{"{ADDRESS.hex().upper()}": 3}}}}'
    assert ChainConfig.from_json(text) == ChainConfig(chain_id=7, timestamp=5, alloc={ADDRESS: 3})


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("", "not JSON"),
        ("{", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("[]", "not a JSON object"),
        ("null", "not a JSON object"),
        ('{"timestamp": 1}', "chain_id: missing"),
        ('{"chain_id": 1}', "timestamp: missing"),
        ('{"chain_id": 1, "chain_id": 2, "timestamp": 1}', "chain_id: given twice"),
        (document(chainid=1), "chainid: no such field"),
        (document(network_id=1), "network_id: no such field"),
        (document(chain_id=None), "chain_id: None is not an integer"),
        (document(chain_id="1"), "chain_id: '1' is not an integer"),
        (document(gas_limit=3e7), "gas_limit: 30000000.0 is not an integer"),
        (document(block_time=True), "block_time: True is not an integer"),
        ('{"chain_id": 1, "timestamp": NaN}', "timestamp: nan is not an integer"),
        (document(validators={}), "validators: must be a JSON array"),
        (document(validators="ab"), "validators: must be a JSON array"),
        (document(validators=[7]), "validators[0]: 7 is not 64 hex digits"),
        (document(validators=[A.hex(), "ab"]), "validators[1]: 'ab' is not 64 hex digits"),
        (document(validators=[" " * 64]), "validators[0]: "),
        (document(validators=["00" * 32]), "validators[0]: "),
        (document(alloc=[]), "alloc: must be a JSON object"),
        (document(alloc={"0x12": 1}), "alloc: '0x12' is not 40 hex digits"),
        (document(alloc={"00" * 20: "1.5"}), f"alloc.{'00' * 20}: '1.5' is not an integer"),
        (document(alloc={"00" * 20: "٣"}), f"alloc.{'00' * 20}: '٣' is not an integer"),
        (document(alloc={"00" * 20: "9" * 40}), f"alloc.{'00' * 20}: "),
        (document(alloc={"00" * 20: "-1"}), f"alloc.{'00' * 20}: '-1' is not an integer"),
        (document(alloc={"00" * 20: 0}), f"alloc.0x{'00' * 20}: 0, must be"),
        (document(alloc={"00" * 20: 1, "0x" + "00" * 20: 1}), "given twice"),
        (document(checkpoints=[]), "checkpoints: must be a JSON object"),
        (document(checkpoints={"x": "00" * 32}), "checkpoints.x: 'x' is not an integer"),
        (document(checkpoints={"1": "00"}), "checkpoints.1: '00' is not 64 hex digits"),
    ],
)
def test_what_is_wrong_in_a_file_is_named(tmp_path: Path, text: str, what: str) -> None:
    with pytest.raises(ConfigError) as direct:
        ChainConfig.from_json(text)
    assert what in str(direct.value)
    path = tmp_path / "genesis.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError) as loaded:
        ChainConfig.load(path)
    assert str(loaded.value) == f"genesis file {path}: {direct.value}"


def test_files_that_cannot_be_used_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError, match=r"none\.json: No such file"):
        ChainConfig.load(tmp_path / "none.json")
    with pytest.raises(ConfigError, match=r"Is a directory"):
        ChainConfig.load(tmp_path)
    with pytest.raises(ConfigError, match=r"none/genesis\.json: No such file"):
        config().save(tmp_path / "none" / "genesis.json")
    (tmp_path / "latin.json").write_bytes(b'{"chain_id": "\xe9"}')
    with pytest.raises(ConfigError, match=r"latin\.json: not UTF-8"):
        ChainConfig.load(tmp_path / "latin.json")
    monkeypatch.setattr(genesis, "GENESIS_FILE_CAP", 10)
    (tmp_path / "long.json").write_text(config().to_json())
    with pytest.raises(ConfigError, match=r"long\.json: over 10 bytes"):
        ChainConfig.load(tmp_path / "long.json")
