"""`moderntensor chain`: what it makes, shows, and finds out."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from helpers.command import complaint, complaint_of, printed, run_each, succeed
from helpers.no_room import no_room

from moderntensor.backend import merkle
from moderntensor.blockchain import tables
from moderntensor.blockchain.chain import Blockchain
from moderntensor.blockchain.genesis import ChainConfig
from moderntensor.blockchain.lookup import HeaderBatch
from moderntensor.blockchain.staging import Pivot, StateStaging
from moderntensor.blockchain.state_tree import FilledState
from moderntensor.cli.devnet import Devnet
from moderntensor.errors import ConfigError
from moderntensor.storage import ReadTransaction, WriteTransaction, open_store

BLOCKS = 30


@contextmanager
def opened(net: Path) -> Iterator[Blockchain]:
    with open_store(net / "data" / "chain", tables.TABLES) as store:
        yield Blockchain(store, ChainConfig.load(net / "genesis.json"))


def value(shown: str, name: str) -> str:
    """What is shown beside a name."""
    found = re.search(rf"^{name} {{2,}}(.+)$", shown, re.MULTILINE)
    assert found, shown
    return found[1]


# --- new, produce --------------------------------------------------------------------------


def test_new_makes_a_chain_that_a_seed_repeats(made: Path, net: Path, tmp_path: Path) -> None:
    again = tmp_path / "again"
    options = ("--validators", "2", "--accounts", "4", "--block-time", "1", "--seed", "tests")
    shown, repeated = map(
        printed,
        run_each(
            [
                ("chain", "inspect", net),
                ("chain", "new", again, "--blocks", "30", "--timestamp", "1700000000", *options),
            ]
        ),
    )
    assert value(repeated, "head") == value(shown, "head")
    with opened(net) as chain:
        assert chain.head.height == BLOCKS
        assert value(shown, "head") == f"{BLOCKS}  {chain.head.hash.hex()}"
        assert value(shown, "state root") == chain.head.state_root.hex()
        assert value(shown, "genesis") == chain.genesis_hash.hex()
        assert value(shown, "transactions") == str(2 * BLOCKS)
    for secret in (net / "keys").iterdir():
        assert secret.stat().st_mode & 0o077 == 0


def test_new_without_options_can_be_produced_on(tmp_path: Path) -> None:
    """Slots end at the present: there is room for what was asked, and not for more."""
    net = tmp_path / "net"
    new, produce, inspect = run_each(
        [
            ("chain", "new", net, "--blocks", "2"),
            ("chain", "produce", net, "--blocks", "5"),
            ("chain", "inspect", net),
        ]
    )
    assert value(printed(new), "validators") == "3"
    assert "slots of 12 s" in complaint_of(produce)
    assert value(printed(inspect), "head").startswith("2  ")


def test_new_makes_a_chain_whose_transfers_make_accounts(tmp_path: Path) -> None:
    net = tmp_path / "net"
    growth = ("--total-transfers", "50", "--new-accounts", "25", "--snapshot-interval", "8")
    options = ("--blocks", "20", "--validators", "0", "--accounts", "4", *growth)
    made, too_many, too_full = run_each(
        [
            ("chain", "new", net, *options),
            ("chain", "new", tmp_path / "a", "--blocks", "2", "--new-accounts", "5"),
            ("chain", "new", tmp_path / "b", "--blocks", "2", "--total-transfers", "2001"),
        ]
    )
    shown = printed(made)
    assert value(shown, "transactions") == "50"
    assert value(shown, "accounts") == "29"
    with opened(net) as chain:
        assert chain.config.snapshot_interval == 8
    assert "--new-accounts 5: there are 4 transfers" in complaint_of(too_many)
    assert "--total-transfers 2001: a block holds at most 1000" in complaint_of(too_full)
    assert not (tmp_path / "a").exists()


def test_new_touches_nothing_that_is_there(net: Path) -> None:
    before = {path: path.read_bytes() for path in net.rglob("*") if path.is_file()}
    taken, nowhere = run_each(
        [("chain", "new", net), ("chain", "new", net / "genesis.json" / "below")]
    )
    assert "not an empty directory" in complaint_of(taken)
    assert "genesis.json" in complaint_of(nowhere)
    assert {path: path.read_bytes() for path in net.rglob("*") if path.is_file()} == before


def test_new_leaves_nothing_in_the_way_where_the_disk_is_full(tmp_path: Path) -> None:
    """A volume in which half a chain stays would need to be emptied by hand."""
    devnet = Devnet(tmp_path / "net")
    made = {"validators": 2, "accounts": 3, "block_time": 1, "timestamp": 1}
    with no_room(), pytest.raises(ConfigError, match=r"validator-0\.key"):
        devnet.create(bytes(32), **made)
    assert list(devnet.path.iterdir()) == []
    config = devnet.create(bytes(32), **made)
    assert len(devnet.validator_keys(config)) == 2


def test_produce_goes_on_where_the_chain_ended(net: Path) -> None:
    with opened(net) as chain:
        head = chain.head.hash
    produce, verify = run_each(
        [
            ("chain", "produce", net, "--blocks", "3", "--transfers", "1"),
            ("chain", "verify", net),
        ]
    )
    shown = printed(produce)
    with opened(net) as chain:
        assert chain.head.height == BLOCKS + 3
        assert chain.hash_at(BLOCKS) == head
        assert value(shown, "head") == f"{BLOCKS + 3}  {chain.head.hash.hex()}"
    assert f"{BLOCKS + 3} blocks verified" in printed(verify)


def test_produce_needs_the_keys(net: Path) -> None:
    (net / "keys" / "validator-1.key").unlink()
    assert "validator-1.key" in complaint("chain", "produce", net)


# --- inspect -------------------------------------------------------------------------------


def test_inspect_shows_blocks_transactions_and_accounts(net: Path) -> None:
    with opened(net) as chain:
        block = chain.get_block(7)
        assert block is not None
        transaction = block.transactions[0]
        account = chain.get_account(transaction.sender)
        newest = chain.transactions_of(transaction.sender, limit=10)
    results = run_each(
        ("chain", "inspect", net, option, text)
        for option, text in (
            ("--block", "7"),
            ("--block", block.hash.hex()),
            ("--transaction", transaction.hash.hex()),
            ("--account", f"0x{transaction.sender.hex()}"),
        )
    )
    assert [(result.returncode, result.stderr) for result in results] == 4 * [(0, "")]
    by_height, by_hash, of_transaction, of_account = (result.stdout for result in results)
    assert value(by_height, "hash") == block.hash.hex()
    assert value(by_height, "parent") == block.header.previous_hash.hex()
    assert f"  {transaction.hash.hex()}\n" in by_height
    assert by_hash == by_height
    assert value(of_transaction, "block") == "7, position 0"
    assert value(of_transaction, "from") == f"0x{transaction.sender.hex()}"
    assert value(of_account, "nonce") == str(account.nonce)
    assert value(of_account, "balance") == f"{account.balance:,}"  # exact, with all its 18 digits
    assert re.findall(r"^  ([0-9a-f]{64})$", of_account, re.MULTILINE) == [
        tx_hash.hex() for tx_hash in newest
    ]


def test_inspect_says_what_is_not_there(made: Path) -> None:
    wrong = [
        ("--block", "31", "no such block"),
        ("--block", "0f" * 32, "no such block"),
        ("--block", "seven", "64 hex digits"),
        ("--transaction", "0f" * 32, "no such transaction"),
        ("--account", "0x12", "40 hex digits"),
    ]
    results = run_each(("chain", "inspect", made, option, text) for option, text, _ in wrong)
    for result, (_, _, answer) in zip(results, wrong, strict=True):
        assert answer in complaint_of(result)


def test_what_is_no_chain_is_refused(net: Path, tmp_path: Path) -> None:
    genesis = net / "genesis.json"
    genesis.write_text(genesis.read_text().replace('"chain_id": 1', '"chain_id": 2'))
    nothing, another = run_each([("chain", "inspect", tmp_path), ("chain", "verify", net)])
    assert "genesis.json" in complaint_of(nothing)
    assert "holds the chain of genesis" in complaint_of(another)


# --- verify --------------------------------------------------------------------------------


def test_verify_executes_everything_again(made: Path) -> None:
    shown = succeed("chain", "verify", made)
    assert shown.startswith(f"{BLOCKS} blocks verified: ")


def entry(txn: ReadTransaction, table: str) -> tuple[bytes, bytes]:
    """One in the middle of a table."""
    entries = txn.range(table)
    return entries[len(entries) // 2]


def flip(txn: WriteTransaction, table: str, at: int) -> None:
    """One bit of one entry."""
    key, data = entry(txn, table)
    changed = bytearray(data)
    changed[at] ^= 1
    txn.put(table, key, bytes(changed))


def forget(txn: WriteTransaction, table: str) -> None:
    key, _ = entry(txn, table)
    txn.delete(table, key)


def test_verify_finds_what_was_changed(made: Path, tmp_path: Path) -> None:
    changes = [
        (tables.BODIES, -1, "breaks rule 'body'"),
        (tables.BODIES, None, "is missing"),
        (tables.CANONICAL, 60, "breaks rule"),
        (tables.ACCOUNTS, 40, "table 'accounts'"),
        (tables.ACCOUNTS, None, "table 'accounts'"),
        (tables.TX_INDEX, 7, "table 'tx_index'"),
    ]
    nets = [tmp_path / str(number) for number in range(len(changes))]
    for net, (table, at, _) in zip(nets, changes, strict=True):
        shutil.copytree(made, net)
        with open_store(net / "data" / "chain", tables.TABLES) as store, store.write() as txn:
            if at is None:
                forget(txn, table)
            else:
                flip(txn, table, at)
    results = run_each(("chain", "verify", net) for net in nets)
    for result, (_, _, answer) in zip(results, changes, strict=True):
        assert answer in complaint_of(result)


# --- where a state was fetched ---------------------------------------------------------------


def fast(net: Path, made: Path, pivot: int) -> None:
    """Put a chain in `net` in place of its own that has headers and the state of `pivot` only."""
    shutil.rmtree(net / "data")
    with opened(made) as source:
        batch = HeaderBatch(source.headers_range(1, BLOCKS))
        blocks = [source.get_block(height) for height in range(1, BLOCKS + 1)]
        config = source.config
    with open_store(None, tables.TABLES) as scratch:
        earlier = Blockchain(scratch, config)
        for block in blocks[:pivot]:
            assert block is not None
            earlier.import_block(block)
        with scratch.read() as txn:
            records = txn.values(tables.ACCOUNTS)
        root = earlier.head.state_root
    with opened(net) as chain:
        chain.add_headers(batch)
        staging = StateStaging(chain.store)
        staging.aim(Pivot(pivot, batch.hash(pivot - 1), root))
        whole = FilledState(*merkle.state_records(b"".join(records)))
        staging.fill([(staging.holes(1)[0], whole)])
        chain.adopt_state(staging)
        chain.apply_bodies(pivot + 1, [block.body for block in blocks[pivot:] if block])


def stateless(made: Path, net: Path) -> Path:
    """Make of `net` a chain that knows nothing but the root of its first state."""
    shutil.rmtree(net / "data")
    document = json.loads((net / "genesis.json").read_text())
    with opened(made) as source:
        root = source.get_header(0)
    assert root is not None
    del document["alloc"]
    document["state_root"] = root.state_root.hex()
    (net / "genesis.json").write_text(json.dumps(document))
    return net


def test_a_chain_without_old_bodies(made: Path, net: Path, tmp_path: Path) -> None:
    fast(net, made, 20)
    damaged = Path(shutil.copytree(net, tmp_path / "damaged"))
    with opened(damaged) as chain, chain.store.write() as txn:
        flip(txn, tables.ACCOUNTS_B, 40)
    pruned = Path(shutil.copytree(net, tmp_path / "pruned"))
    with opened(pruned) as chain, chain.store.write() as txn:
        forget(txn, tables.BODIES)
    bare = stateless(made, Path(shutil.copytree(net, tmp_path / "bare")))
    shown, found, wrong, less, block, nothing, account, unverified, produced = run_each(
        [
            ("chain", "inspect", net),
            ("chain", "verify", net),
            ("chain", "verify", damaged),
            ("chain", "verify", pruned),
            ("chain", "inspect", net, "--block", "20"),
            ("chain", "inspect", bare),
            ("chain", "inspect", bare, "--account", "00" * 20),
            ("chain", "verify", bare),
            ("chain", "produce", bare),
        ]
    )
    assert value(printed(shown), "bodies") == "from block 21 on"
    assert "all bodies from block 21 on; older ones are not here" in printed(found)
    assert "accounts verified: they lead to the state root of the head" in printed(found)
    assert "the stored accounts lead to the state root" in complaint_of(wrong)
    assert "is missing" in complaint_of(less)
    assert "its body is not here; bodies begin at block 21" in complaint_of(block)
    assert value(printed(nothing), "accounts") == "not here yet"
    assert "accounts of this chain are not here" in complaint_of(account)
    assert "the accounts of the first state are not here" in complaint_of(unverified)
    assert "gives 0 accounts a balance, and transfers need two" in complaint_of(produced)
