"""``moderntensor chain``: make, extend, look at and verify a chain on this disk."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Annotated

import typer

from ..blockchain.chain import Blockchain
from ..blockchain.crypto import sha256
from ..blockchain.genesis import ChainConfig
from ..blockchain.state_slots import active
from ..blockchain.tables import TX_INDEX
from ..blockchain.workload import build_chain
from ..errors import ConfigError, StateMissingError
from ..runtime import Runtime
from .devnet import Devnet, blocks_per_commit
from .facts import account_facts, block_facts, chain_facts, transaction_facts
from .output import AsJson, console, count, emit, progress, show, size, working
from .output import directory as directory_of
from .verify import verify_chain

MAX_TRANSFERS = 1000  # in a block: its gas has room for 1,428

app = typer.Typer(help="Make, extend, look at and verify a chain.", no_args_is_help=True)

Directory = Annotated[
    Path, typer.Argument(metavar="DIR", parser=directory_of, help="Directory of the chain.")
]
Blocks = Annotated[int, typer.Option(min=0, help="Blocks to put on it.")]
Transfers = Annotated[int, typer.Option(min=0, max=MAX_TRANSFERS, help="Transfers in each block.")]


@app.command("new")
def new(
    directory: Directory,
    blocks: Blocks = 0,
    transfers: Transfers = 2,
    validators: Annotated[
        int, typer.Option(min=0, max=100, help="Validators taking turns; 0: any key may sign.")
    ] = 3,
    accounts: Annotated[
        int, typer.Option(min=2, max=1_000_000, help="Accounts with a balance.")
    ] = 20,
    total_transfers: Annotated[
        int | None,
        typer.Option(min=0, help="Transfers in all, spread evenly over the blocks instead."),
    ] = None,
    new_accounts: Annotated[
        int,
        typer.Option(
            min=0, help="So many of the transfers make an account; the others pay one of those."
        ),
    ] = 0,
    snapshot_interval: Annotated[
        int, typer.Option(min=1, max=2**32 - 1, help="Blocks between states kept for fast sync.")
    ] = ChainConfig.snapshot_interval,
    block_time: Annotated[int, typer.Option(min=1, help="Seconds per slot.")] = 12,
    timestamp: Annotated[
        int | None,
        typer.Option(min=0, help="Unix time of the genesis block. Default: so that BLOCKS fit."),
    ] = None,
    seed: Annotated[
        str | None,
        typer.Option(help="Derive all keys from this text: repeatable, for tests only."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Make a chain: a genesis file, keys for its validators and accounts, and blocks.

    Start a node on it with: moderntensor node --genesis DIR/genesis.json --data DIR/data
    --validator-key DIR/keys/validator-0.key
    """
    total = transfers * blocks if total_transfers is None else total_transfers
    if new_accounts > total:
        raise ConfigError(f"--new-accounts {new_accounts}: there are {total} transfers")
    if total > MAX_TRANSFERS * blocks:
        raise ConfigError(f"--total-transfers {total}: a block holds at most {MAX_TRANSFERS}")
    runtime = Runtime()
    devnet = Devnet(directory)
    with working(f"making {count(accounts)} accounts"):
        config = devnet.create(
            sha256(seed.encode()) if seed is not None else runtime.entropy(32),
            validators=validators,
            accounts=accounts,
            block_time=block_time,
            timestamp=int(runtime.wall_time()) - blocks * block_time
            if timestamp is None
            else timestamp,
            snapshot_interval=snapshot_interval,
        )
    with devnet.chain(config) as chain:
        _extend(devnet, chain, blocks, total, new_accounts)
        _show_summary(devnet.path, chain, as_json)


@app.command("produce")
def produce(
    directory: Directory, blocks: Blocks = 1, transfers: Transfers = 2, as_json: AsJson = False
) -> None:
    """Put more signed blocks on the chain in DIR, one per slot, up to the present."""
    devnet = Devnet(directory)
    config = devnet.load()
    with devnet.chain(config) as chain:
        room = config.slot_of(int(Runtime().wall_time())) - config.slot_of(chain.head.timestamp)
        if blocks > room:
            raise ConfigError(
                f"--blocks {blocks}: only {max(room, 0)} slots of {config.block_time} s have "
                "passed since the last block; nodes refuse blocks from the future"
            )
        _extend(devnet, chain, blocks, transfers * blocks)
        _show_summary(devnet.path, chain, as_json)


@app.command("inspect")
def inspect(
    directory: Directory,
    block: Annotated[
        str | None, typer.Option(metavar="HEIGHT|HASH", help="Show this block.")
    ] = None,
    transaction: Annotated[
        str | None, typer.Option(metavar="HASH", help="Show this transaction.")
    ] = None,
    account: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="Show this account.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show the chain in DIR, or one block, transaction or account of it."""
    devnet = Devnet(directory)
    with devnet.chain(devnet.load()) as chain:
        if block is not None:
            _show_block(chain, block, as_json)
        if transaction is not None:
            _show_transaction(chain, transaction, as_json)
        if account is not None:
            _show_account(chain, account, as_json)
        if block is transaction is account is None:
            _show_summary(devnet.path, chain, as_json)


@app.command("verify")
def verify(directory: Directory, as_json: AsJson = False) -> None:
    """Check and execute the whole chain in DIR again, from its genesis, trusting nothing stored.

    Where a state was fetched and older bodies are not here, the headers, the state and the bodies
    that are here are checked instead.
    """
    devnet = Devnet(directory)
    with devnet.chain(devnet.load()) as chain:
        told = verify_chain(chain)
        if as_json:
            emit({**chain_facts(devnet.path, chain), "verified": told.splitlines()})
        else:
            console().print(f"{told}\nhead {chain.head.hash.hex()}")


# --- work ----------------------------------------------------------------------------------


def _extend(
    devnet: Devnet, chain: Blockchain, blocks: int, transfers: int, new_accounts: int = 0
) -> None:
    accounts = devnet.account_keys(chain.config)
    if transfers and len(accounts) < 2:
        raise ConfigError(
            f"genesis file {devnet.genesis}: gives {len(accounts)} accounts a balance, and "
            "transfers need two; without transfers, blocks can be made"
        )
    heads = build_chain(
        chain,
        validators=devnet.validator_keys(chain.config) or accounts[:1],
        accounts=accounts,
        blocks=blocks,
        transfers=transfers,
        new_accounts=new_accounts,
        batch=blocks_per_commit(-(-transfers // max(blocks, 1))),
    )
    progress("signing blocks", blocks, heads, start=chain.head.height)


# --- showing -------------------------------------------------------------------------------


def _show_summary(path: Path, chain: Blockchain, as_json: bool) -> None:
    if as_json:
        emit(chain_facts(path, chain))
        return
    head, config = chain.head, chain.config
    with chain.store.read() as txn:
        accounts, transactions = txn.count(active(txn).accounts), txn.count(TX_INDEX)
    show(
        {
            "directory": path,
            "chain id": config.chain_id,
            "genesis": chain.genesis_hash.hex(),
            "validators": len(config.validators) or "open: any key may sign",
            "block time": f"{config.block_time} s",
            "head": f"{count(head.height)}  {head.hash.hex()}",
            "state root": head.state_root.hex(),
            "bodies": f"from block {count(chain.earliest_height)} on"
            if chain.earliest_height
            else "all",
            "transactions": count(transactions),
            "accounts": count(accounts) if chain.has_state else "not here yet",
            "on disk": size(chain.store.size_on_disk()),
        }
    )


def _show_block(chain: Blockchain, text: str, as_json: bool) -> None:
    where = int(text) if text.isascii() and text.isdigit() and len(text) < 20 else _hex(text, 32)
    block = chain.get_block(where)
    if block is None:
        if chain.header_bytes(where) is not None:
            raise ConfigError(
                f"--block {text}: is on the chain, but its body is not here; bodies begin at "
                f"block {chain.earliest_height}"
            )
        raise ConfigError(f"--block {text}: there is no such block on the chain")
    if as_json:
        emit(block_facts(block))
        return
    header = block.header
    show(
        {
            "height": count(header.height),
            "hash": header.hash.hex(),
            "parent": header.previous_hash.hex(),
            "timestamp": header.timestamp,
            "validator": header.validator.hex(),
            "state root": header.state_root.hex(),
            "gas used": f"{count(header.gas_used)} of {count(header.gas_limit)}",
            "size": size(len(block.encode())),
            "transactions": len(block.transactions),
        }
    )
    for shown in islice(block.transactions, 50):
        console().print(f"  {shown.hash.hex()}")
    if len(block.transactions) > 50:
        console().print(f"  and {len(block.transactions) - 50} more")


def _show_transaction(chain: Blockchain, text: str, as_json: bool) -> None:
    tx_hash = _hex(text, 32)
    found = chain.get_transaction(tx_hash)
    if found is None:
        older = f" from block {chain.earliest_height} on" if chain.earliest_height else ""
        raise ConfigError(f"--transaction {text}: there is no such transaction on the chain{older}")
    transaction, height, position = found
    if as_json:
        emit(transaction_facts(transaction, height, position))
        return
    show(
        {
            "hash": transaction.hash.hex(),
            "block": f"{count(height)}, position {position}",
            "from": "0x" + transaction.sender.hex(),
            "to": "0x" + transaction.to.hex() if transaction.to else "(none)",
            "value": count(transaction.value),
            "nonce": transaction.nonce,
            "fee": f"{count(transaction.intrinsic_gas * transaction.gas_price)} "
            f"({count(transaction.intrinsic_gas)} gas at {count(transaction.gas_price)})",
            "data": size(len(transaction.data)),
        }
    )


def _show_account(chain: Blockchain, text: str, as_json: bool) -> None:
    address = _hex(text, 20)
    if not chain.has_state:
        raise StateMissingError(f"--account {text}: the accounts of this chain are not here yet")
    if as_json:
        emit(account_facts(chain, address))
        return
    account = chain.get_account(address)
    show(
        {
            "address": "0x" + address.hex(),
            "balance": count(account.balance),
            "nonce": account.nonce,
        }
    )
    for tx_hash in chain.transactions_of(address, limit=10):
        console().print(f"  {tx_hash.hex()}")


def _hex(text: str, length: int) -> bytes:
    try:
        value = bytes.fromhex(text.removeprefix("0x"))
    except ValueError:
        value = b""
    if len(value) != length:
        raise ConfigError(f"{text!r} is not {2 * length} hex digits")
    return value
