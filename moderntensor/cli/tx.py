"""``moderntensor tx``: send a transaction through a running node, and look at one."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import ConfigError, InvalidTransactionError, ModernTensorError
from .output import AsJson, console, count, emit, seconds_of, show, working
from .remote import (
    DataDirectory,
    Node,
    TokenFile,
    ask,
    emit_model,
    hex_digits,
    token_in,
)
from .status import DEFAULT_NODE

if TYPE_CHECKING:
    from ..blockchain.crypto import KeyPair
    from ..blockchain.transaction import Transaction as SignedTransaction
    from ..client import Client
    from ..client.model import Submitted, Transaction

app = typer.Typer(help="Send a transaction, and look at one.", no_args_is_help=True)


@app.command("send")
def send(
    key_file: Annotated[
        Path, typer.Option("--key", metavar="FILE", help="The key file of the sender.")
    ],
    to: Annotated[str, typer.Option(metavar="ADDRESS", help="Who gets it, 40 hex digits.")],
    value: Annotated[int, typer.Option(min=0, max=2**128 - 1, help="How much.")] = 0,
    payload: Annotated[
        str, typer.Option("--input", metavar="HEX", help="Data that goes with it.")
    ] = "",
    gas_price: Annotated[int, typer.Option(min=0, max=2**64 - 1, help="For each gas.")] = 1,
    gas_limit: Annotated[
        int | None, typer.Option(min=0, max=2**64 - 1, help="Default: just what it costs.")
    ] = None,
    nonce: Annotated[
        int | None, typer.Option(min=0, max=2**64 - 1, help="Default: the next, says the node.")
    ] = None,
    chain_id: Annotated[
        int | None,
        typer.Option(min=0, max=2**64 - 1, help="Send to this chain alone. Default: the node's."),
    ] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Until it is in a block.")] = False,
    patience: Annotated[
        str, typer.Option("--timeout", metavar="TIME", help="How long to wait: seconds, or 15m.")
    ] = "10m",
    node: Node = DEFAULT_NODE,
    data: DataDirectory = None,
    token_file: TokenFile = None,
    as_json: AsJson = False,
) -> None:
    """Sign a transaction here, and hand it to a running node. The key stays on this machine.

    With --wait, exits with 1 unless it took effect.
    """
    from ..blockchain.key_files import load_key  # noqa: PLC0415 - `show` needs no engines

    key = load_key(key_file)
    recipient, attached = hex_digits("--to", to, 20), hex_digits("--input", payload)
    seconds = seconds_of("--timeout", patience)

    handed_in: Submitted | None = None

    async def work(client: Client) -> Transaction | None:
        nonlocal handed_in
        with working("asking the node for nonce and chain id") as say:
            signed = await _signed(
                client, key, recipient, value, attached, gas_price, gas_limit, nonce, chain_id
            )
            say("handing it in")
            handed_in = await client.submit(signed)
            if not wait:
                return None
            say(f"{handed_in.hash} waits for a block")
            try:
                async with asyncio.timeout(seconds):
                    return await client.wait_for_transaction(handed_in.hash)
            except TimeoutError:
                raise ModernTensorError(
                    f"transaction {handed_in.hash} was handed in, and is in no block after "
                    f"{seconds} s: moderntensor tx show tells when it is"
                ) from None

    found = None
    try:
        found = ask(node, work, token_in(token_file, data))
    finally:
        # However the waiting ended, an interrupt too: it is on its way, and its hash is known.
        if handed_in is not None and found is None:
            with _telling_of(handed_in.hash):
                _tell_handed_in(handed_in, as_json, wait=wait)
    if found is not None:
        with _telling_of(found.hash):
            _show(found, as_json)
        if found.succeeded is False:
            raise typer.Exit(1)


@app.command("show")
def show_one(
    tx_hash: Annotated[str, typer.Argument(metavar="HASH", help="64 hex digits.")],
    node: Node = DEFAULT_NODE,
    as_json: AsJson = False,
) -> None:
    """Show a transaction of a block, or one that waits for one."""
    wanted = hex_digits("HASH", tx_hash, 32)
    _show(ask(node, lambda client: client.transaction(wanted)), as_json)


async def _signed(
    client: Client,
    key: KeyPair,
    to: bytes,
    value: int,
    data: bytes,
    gas_price: int,
    gas_limit: int | None,
    nonce: int | None,
    chain_id: int | None,
) -> SignedTransaction:
    from ..blockchain.transaction import Transaction as Signed  # noqa: PLC0415

    status = await client.status()
    if chain_id not in (None, status.chain_id):
        raise ConfigError(
            f"--chain-id {chain_id}: node {client.node} is on chain {status.chain_id}"
        )
    if nonce is None:
        nonce = (await client.account(key.address)).next_nonce
    signed = Signed.create(
        key,
        chain_id=status.chain_id,
        nonce=nonce,
        to=to,
        value=value,
        gas_price=gas_price,
        gas_limit=gas_limit,
        data=data,
    )
    if gas_limit is not None and gas_limit < signed.intrinsic_gas:
        raise InvalidTransactionError("gas-limit", f"it costs {signed.intrinsic_gas} gas")
    return signed


@contextmanager
def _telling_of(tx_hash: str) -> Iterator[None]:
    """Who cannot be told on stdout is told on stderr: a transaction sent again pays twice."""
    try:
        yield
    except OSError as error:
        raise ModernTensorError(
            f"transaction {tx_hash} was handed in, which could not be printed: "
            f"{error.strerror or error}"
        ) from error


def _tell_handed_in(submitted: Submitted, as_json: bool, *, wait: bool) -> None:
    if as_json:
        told = {"hash": submitted.hash, "sent_to": submitted.sent_to}
        emit({**told, "height": None} if wait else told)
    else:
        peers = f"{submitted.sent_to} peer{'' if submitted.sent_to == 1 else 's'}"
        console().print(f"{submitted.hash} handed in, {peers} told")


def _show(found: Transaction, as_json: bool) -> None:
    if as_json:
        emit_model(found)
        return
    outcome = {None: "not known", True: "took effect", False: "failed"}[found.succeeded]
    show(
        {
            "hash": found.hash,
            "block": "none yet: it waits"
            if found.height is None
            else f"{count(found.height)}, position {found.position}",
            "outcome": "-" if found.height is None else outcome,
            "from": found.sender,
            "to": found.to or "(none)",
            "value": count(int(found.value)),
            "nonce": found.nonce,
            "gas": f"{count(found.gas_limit)} at {count(int(found.gas_price))}"
            + ("" if found.gas_used is None else f", {count(found.gas_used)} used"),
            "data": f"0x{found.data}" if found.data else "none",
        }
    )
