"""What the state tree costs: a changed account in states of several sizes, and a state built whole.

    python benchmarks/state_tree.py --accounts 10000 100000 1000000 3000000

Changes go to accounts picked at random of a store on disk, as many as a block of 100 transfers
touches, block by block under one `StateTree`, then flushed and committed: one block for itself, and
256 blocks in one commit as a sync makes them. Whole states: the bare engine over accounts that lie
in memory with their keys; over records as they travel, whose keys it has to hash; the builder,
which also makes what the store keeps of them; and the loader of first states, which writes that.

With `--write` the sizes measured replace those of the same size in benchmarks/results.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import tempfile
import time
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from statistics import median
from typing import Any

from compare.machine import describe

from moderntensor.backend import merkle
from moderntensor.blockchain.genesis import ChainConfig
from moderntensor.blockchain.state import encode_funds
from moderntensor.blockchain.state_build import build_state
from moderntensor.blockchain.state_load import load_state
from moderntensor.blockchain.state_slots import active
from moderntensor.blockchain.state_tree import StateTree, state_root
from moderntensor.blockchain.tables import TABLES
from moderntensor.storage import Store, open_store

RESULTS = Path(__file__).parent / "results" / "state_tree.json"
TOUCHED = 200  # accounts of a block: senders and recipients of 100 transfers
BATCHES = ((1, 30), (256, 3))  # blocks in one commit, and how often that is measured
CHUNK = 8192  # records that are handed over at once
BUILDS = 3
ADDRESS, KEY, RECORD = 20, 32, 108


def address(number: int) -> bytes:
    return number.to_bytes(ADDRESS, "big")


def sorted_records(accounts: int) -> tuple[list[bytes], bytes]:
    """The accounts 0, 1, … in the order of their keys: as chunks of records, and packed with
    their keys as the bare engine takes them."""
    value = encode_funds(1, 10**18) or b""
    keyed = sorted(sha256(address(n)).digest() + address(n) for n in range(accounts))
    chunks = [
        b"".join([item[KEY:] + value for item in keyed[at : at + CHUNK]])
        for at in range(0, accounts, CHUNK)
    ]
    return chunks, b"".join([item[:KEY] + value for item in keyed])


def measure(accounts: int, home: Path) -> dict[str, Any]:
    """One size; the store lives under `home` meanwhile."""
    chunks, packed = sorted_records(accounts)
    records = b"".join(chunks)
    bare, engine, whole = [], [], []
    for _ in range(BUILDS):
        start = time.perf_counter()
        root, count = merkle.state_subtree(packed)
        bare.append(time.perf_counter() - start)
        start = time.perf_counter()
        checked = merkle.state_records(records, rows=False)
        engine.append(time.perf_counter() - start)
        start = time.perf_counter()
        built = build_state(chunks, lambda rows, nodes: None)
        whole.append(time.perf_counter() - start)
        assert built == checked[:2] == (root, count) == (root, accounts)
    del packed, records, checked
    config = ChainConfig(chain_id=1, timestamp=1_700_000_000, state_root=root)
    with open_store(home / "store", TABLES) as store:
        start = time.perf_counter()
        assert load_state(store, config, chunks) == accounts
        loaded = time.perf_counter() - start
        del chunks
        with store.read() as txn:
            assert state_root(txn) == root
            nodes = txn.count(active(txn).nodes)
        size = store.size_on_disk()
        rng = random.Random(accounts)
        batches = [change(store, rng, accounts, blocks, rounds) for blocks, rounds in BATCHES]
    return {
        "accounts": accounts,
        "nodes": nodes,
        "bytes_on_disk": size,
        "bare_engine_per_second": round(accounts / min(bare)),
        "records_per_second": round(accounts / min(engine)),
        "built_per_second": round(accounts / min(whole)),
        "loaded_per_second": round(accounts / loaded),
        "batches": batches,
    }


def change(
    store: Store, rng: random.Random, accounts: int, blocks: int, rounds: int
) -> dict[str, Any]:
    """Microseconds of one account changed by a block: medians of the rounds, by step."""
    spent: dict[str, list[float]] = {"apply": [], "flush": [], "commit": [], "all": []}
    for turn in range(rounds + 1):
        changes = list(block_changes(rng, accounts, blocks))
        begin = time.perf_counter()
        with store.write() as txn:
            tree = StateTree(txn)
            for block in changes:
                tree.apply(block)
            applied = time.perf_counter()
            tree.flush()
            flushed = time.perf_counter()
        end = time.perf_counter()
        if turn:  # the first one finds nothing in memory
            steps = (applied - begin, flushed - applied, end - flushed, end - begin)
            for name, seconds in zip(spent, steps, strict=True):
                spent[name].append(seconds * 1e6 / (blocks * TOUCHED))
    return {
        "blocks": blocks,
        "touched_by_block": TOUCHED,
        "rounds": rounds,
        "microseconds": {name: round(median(values), 2) for name, values in spent.items()},
    }


def block_changes(
    rng: random.Random, accounts: int, blocks: int
) -> Iterator[dict[bytes, bytes | None]]:
    for _ in range(blocks):
        value = encode_funds(rng.randrange(1, 1 << 40), rng.randrange(1 << 80))
        yield {address(number): value for number in rng.sample(range(accounts), TOUCHED)}


# --- what came out -------------------------------------------------------------------------


def table(found: list[dict[str, Any]]) -> str:
    """Two tables in Markdown: changes, and states built whole."""
    lines = [
        "| Accounts | Stored nodes | One block: µs an account | – apply | – flush | – commit "
        "| 256 blocks: µs an account | – apply | – flush | – commit |",
        "|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for size in found:
        cells = [f"{size['accounts']:,}", f"{size['nodes']:,}"]
        for batch in size["batches"]:
            spent = batch["microseconds"]
            cells += [f"{spent[name]:.1f}" for name in ("all", "apply", "flush", "commit")]
        lines.append("| " + " | ".join(cells) + " |")
    lines += [
        "",
        "| Accounts | Bare engine | – of records | Built | Loaded into the store | On disk |",
        "|--:|--:|--:|--:|--:|--:|",
    ]
    rates = ("bare_engine", "records", "built", "loaded")
    for size in found:
        cells = [f"{size['accounts']:,}"]
        cells += [f"{size[f'{name}_per_second'] / 1e6:.2f}M/s" for name in rates]
        cells.append(f"{size['bytes_on_disk'] / 2**20:,.0f} MiB")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def write(found: list[dict[str, Any]]) -> None:
    """Put the sizes beside those that were measured before."""
    before = json.loads(RESULTS.read_text())["sizes"] if RESULTS.exists() else []
    sizes = {size["accounts"]: size for size in (*before, *found)}
    document = {
        "title": "The state tree: changes and whole states",
        "command": "python benchmarks/state_tree.py --write",
        "machine": describe(),
        "sizes": [sizes[accounts] for accounts in sorted(sizes)],
    }
    RESULTS.write_text(json.dumps(document, indent=1) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--accounts", type=int, nargs="+", default=[10_000, 100_000, 1_000_000, 3_000_000]
    )
    parser.add_argument("--write", action="store_true", help="keep the figures in the results")
    options = parser.parse_args()
    found = []
    for accounts in options.accounts:
        home = Path(tempfile.mkdtemp(prefix="state-tree-"))
        try:
            found.append(measure(accounts, home))
        finally:
            shutil.rmtree(home)
    print(table(found))
    if options.write:
        write(found)


if __name__ == "__main__":
    main()
