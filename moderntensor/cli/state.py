"""``moderntensor state``: prove what an account holds, and check such a proof."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from ..blockchain.proofs import MAX_PROOF_SIZE, AccountProof, prove_account
from ..blockchain.tables import TABLES
from ..errors import ConfigError, DecodeError, ValidationError
from ..node import CHAIN_DIRECTORY
from ..storage import open_store
from .devnet import Devnet
from .facts import proof_facts
from .output import AsJson, bad_option, console, count, emit, show, working
from .output import directory as directory_of

app = typer.Typer(help="Prove what an account holds, and check such a proof.", no_args_is_help=True)


@app.command("prove")
def prove(
    directory: Annotated[
        Path,
        typer.Argument(
            metavar="DIR",
            parser=directory_of,
            help="Directory of a chain, or a node's data directory.",
        ),
    ],
    address: Annotated[str, typer.Argument(metavar="ADDRESS", help="40 hex digits.")],
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write the proof there; it must not exist yet."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Prove that ADDRESS has its account, or none, after the last block of the chain in DIR.

    The proof is JSON. It can be checked by whoever trusts the state root or the hash of that
    block, without a node. No node may run on DIR meanwhile.
    """
    wanted = _digits("ADDRESS", address, 20)
    with working("reading the state"), open_store(_store_in(directory), TABLES) as store:
        proof = prove_account(store, wanted)
    if out is None:
        typer.echo(proof.to_json(), nl=False)
        return
    _write(out, proof.to_json())
    if as_json:
        emit(proof_facts(proof, trusted=True))
    else:
        _show(proof)


@app.command("check")
def check(
    path: Annotated[
        Path, typer.Argument(metavar="FILE", help="What `prove` wrote; - is standard input.")
    ],
    root: Annotated[
        str | None,
        typer.Option(metavar="HEX", help="The state root that you trust, 64 hex digits."),
    ] = None,
    block: Annotated[
        str | None,
        typer.Option(metavar="HEX", help="The hash of the block that you trust, 64 hex digits."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Check the proof in FILE, and that it is about the state or block that you trust.

    Exit code 0 only where it holds. Without --root and --block nothing says that its block is
    one of your chain: compare the hash.
    """
    trusted_root = None if root is None else _digits("--root", root, 32)
    trusted_block = None if block is None else _digits("--block", block, 32)
    proof = _read(path)
    if trusted_root not in (None, proof.state_root):
        raise ValidationError(
            f"proof file {path}: is about state root {proof.state_root.hex()}, not the one trusted"
        )
    if trusted_block not in (None, proof.block_hash):
        raise ValidationError(
            f"proof file {path}: is about block {proof.block_hash.hex()}, not the one trusted"
        )
    if not proof.verify(proof.state_root):
        raise ValidationError(
            f"proof file {path}: does not prove what it says: its path does not lead from the "
            "account to the state root"
        )
    if as_json:
        emit(proof_facts(proof, trusted=not trusted_root is trusted_block is None))
        return
    _show(proof)
    console().print(
        "proved, if that block is one of your chain: compare its hash with one that you trust"
        if trusted_root is trusted_block is None
        else "proved"
    )


def _show(proof: AccountProof) -> None:
    account = proof.account
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


def _store_in(directory: Path) -> Path:
    """The store of a chain made by `chain new`, or of a node."""
    for store in (Devnet(directory).data / CHAIN_DIRECTORY, directory / CHAIN_DIRECTORY):
        if store.is_dir():
            return store
    raise ConfigError(f"{directory}: holds no chain")


def _write(path: Path, text: str) -> None:
    try:
        file = path.open("x", encoding="ascii")
    except FileExistsError:
        raise ConfigError(f"proof file {path}: exists and is not overwritten") from None
    except OSError as error:
        raise ConfigError(f"proof file {path}: {error.strerror or error}") from error
    try:
        with file:
            file.write(text)
    except OSError as error:
        path.unlink(missing_ok=True)  # half a proof would be in the way of a whole one
        raise ConfigError(f"proof file {path}: {error.strerror or error}") from error


def _read(path: Path) -> AccountProof:
    try:
        if path == Path("-"):
            text = sys.stdin.read(MAX_PROOF_SIZE + 1)
        else:
            with path.open(encoding="utf-8") as file:
                text = file.read(MAX_PROOF_SIZE + 1)
        return AccountProof.from_json(text)
    except UnicodeDecodeError as error:
        raise ConfigError(f"proof file {path}: not UTF-8 ({error.reason})") from error
    except OSError as error:
        raise ConfigError(f"proof file {path}: {error.strerror or error}") from error
    except DecodeError as error:
        raise ConfigError(f"proof file {path}: {error}") from error


def _digits(name: str, text: str, length: int) -> bytes:
    digits = text.removeprefix("0x")
    if len(digits) != 2 * length or not all(c in "0123456789abcdefABCDEF" for c in digits):
        raise bad_option(name, f"{text!r} is not {2 * length} hex digits")
    return bytes.fromhex(digits)
