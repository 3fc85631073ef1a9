"""``moderntensor account``: what an account holds, as a running node says, or proved."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from .output import AsJson, console, count, emit, show
from .remote import Node, ask, emit_model, hex_digits
from .status import DEFAULT_NODE

if TYPE_CHECKING:
    from ..blockchain.proofs import AccountProof

app = typer.Typer(help="Show what an account holds, with a proof if wanted.", no_args_is_help=True)


@app.callback()
def account() -> None:
    """Show what an account holds, with a proof if wanted."""


@app.command("show")
def show_one(
    address: Annotated[str, typer.Argument(metavar="ADDRESS", help="40 hex digits.")],
    prove: Annotated[
        bool, typer.Option("--prove", help="Check here that the node's state holds just that.")
    ] = False,
    root: Annotated[
        str | None,
        typer.Option(metavar="HEX", help="The state root that you trust; implies --prove."),
    ] = None,
    block: Annotated[
        str | None,
        typer.Option(metavar="HEX", help="The hash of the block that you trust; implies --prove."),
    ] = None,
    node: Node = DEFAULT_NODE,
    as_json: AsJson = False,
) -> None:
    """Show an account after the last block of a running node.

    With --prove its Merkle proof is fetched and checked on this machine; exits with 1 where it
    does not hold. Without --root and --block nothing says that the block is one of your chain:
    compare its hash.
    """
    wanted = hex_digits("ADDRESS", address, 20)
    trusted_root = None if root is None else hex_digits("--root", root, 32)
    trusted_block = None if block is None else hex_digits("--block", block, 32)
    trusting = trusted_root is not None or trusted_block is not None
    if prove or trusting:
        proof = ask(
            node,
            lambda client: client.account_proof(
                wanted, trusted_root=trusted_root, trusted_block=trusted_block
            ),
        )
        _show_proved(proof, trusting, as_json)
        return
    found = ask(node, lambda client: client.account(wanted))
    if as_json:
        emit_model(found)
        return
    show(
        {
            "address": found.address,
            "balance": count(int(found.balance)),
            "nonce": found.nonce,
            "next nonce": found.next_nonce,
            "block": f"{count(found.height)}  {found.block_hash}",
        }
    )


def _show_proved(proof: AccountProof, trusting: bool, as_json: bool) -> None:
    account = proof.account
    if as_json:
        from .facts import proof_facts  # noqa: PLC0415 - the engines, which asking needs not

        emit(proof_facts(proof, trusted=trusting))
        return
    show(
        {
            "address": "0x" + proof.address.hex(),
            "balance": "no account" if account is None else count(account.balance),
            "nonce": "no account" if account is None else account.nonce,
            "block": f"{count(proof.height)}  {proof.block_hash.hex()}",
            "state root": proof.state_root.hex(),
            "path": f"{len(proof.path)} steps",
        }
    )
    console().print(
        "proved"
        if trusting
        else "proved, if that block is one of your chain: compare its hash with one that you trust"
    )
