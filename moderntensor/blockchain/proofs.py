"""Proofs for people: that an address has an account, or none, in the state after a block.

A proof is a small JSON document. Whoever trusts a state root, or the hash of a block, needs nothing
else to check it: no node, no chain, no store.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Final, Self

from ..errors import DecodeError, StateMissingError, StorageError
from ..storage import Store
from . import tables
from .block import MAX_HEADER_SIZE, BlockHeader
from .crypto import sha256
from .lookup import canonical_header
from .state import Account, read_encoded, verify_account
from .state_slots import active
from .state_tree import prove

__all__ = ["MAX_PROOF_SIZE", "PROOF_FORMAT", "AccountProof", "prove_account"]

PROOF_FORMAT: Final = "moderntensor/account-proof/1"
MAX_PATH: Final = 257  # nodes over all bits of a key, and another key's account
MAX_PROOF_SIZE: Final = 64 * 1024  # characters; the longest path that there can be takes 45 KiB
_ITEM_SIZES: Final = (80, 120)  # a node, another key's account


@dataclass(frozen=True, slots=True)
class AccountProof:
    """That `address` (20 bytes) has `account`, or none where it is None, after a block.

    `path` is as `merkle.state_proof` gives it: at most 257 items, from the root down.
    """

    address: bytes
    account: Account | None
    header: BlockHeader
    path: tuple[bytes, ...]

    @property
    def height(self) -> int:
        """The height of the block."""
        return self.header.height

    @property
    def block_hash(self) -> bytes:
        """The hash of the block, which commits to `state_root`."""
        return self.header.hash

    @property
    def state_root(self) -> bytes:
        """The root that the path leads to, if the proof holds."""
        return self.header.state_root

    def verify(self, root: bytes) -> bool:
        """Whether the proof holds in the state under `root` (32 bytes), which has to be known
        from elsewhere: the proof's own root says nothing of any chain."""
        return self.state_root == root and verify_account(
            root, self.address, self.account, self.path
        )

    def to_json(self) -> str:
        """The document. Balances are decimal strings: many readers round large numbers."""
        account = None
        if self.account is not None:
            account = {"nonce": self.account.nonce, "balance": str(self.account.balance)}
        document = {
            "format": PROOF_FORMAT,
            "address": "0x" + self.address.hex(),
            "account": account,
            "block": {
                "height": self.height,
                "hash": self.block_hash.hex(),
                "state_root": self.state_root.hex(),
                "header": self.header.encode().hex(),
            },
            "path": [item.hex() for item in self.path],
        }
        return json.dumps(document, indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Self:
        """The proof in a document; DecodeError names the field that is wrong.

        That height, hash and state root are those of the header has been checked then, not that
        the proof holds.
        """
        fields = _fields("the proof", _parse(text), "format", "address", "account", "block", "path")
        if fields["format"] != PROOF_FORMAT:
            raise DecodeError(f"format: is not {PROOF_FORMAT!r}")
        path = fields["path"]
        if not isinstance(path, list):
            raise DecodeError("path: must be a JSON array")
        if len(path) > MAX_PATH:
            raise DecodeError(f"path: {len(path)} items, at most {MAX_PATH}")
        return cls(
            address=_address(fields["address"]),
            account=_account(fields["account"]),
            header=_header(fields["block"]),
            path=tuple(_hex(f"path[{i}]", item, *_ITEM_SIZES) for i, item in enumerate(path)),
        )


def prove_account(store: Store, address: bytes) -> AccountProof:
    """The proof of a 20-byte address in the state of the executed head of the chain in `store`.

    StorageError where there is no chain or where the stored accounts do not lead to its state
    root (StateMissingError: they are not here yet).
    """
    with store.read() as txn:
        head = txn.get(tables.META, tables.META_HEAD)
        raw = None if head is None else canonical_header(txn, tables.parse_height(head))
        if raw is None:
            raise StorageError("the store holds no chain")
        header = BlockHeader.decode(raw)
        encoded = read_encoded(txn, address)
        path = prove(txn, sha256(address))
        empty = txn.first(active(txn).accounts) is None
    proof = AccountProof(
        address, None if encoded is None else Account.decode(encoded), header, tuple(path)
    )
    if not proof.verify(header.state_root):
        if empty:
            raise StateMissingError("the accounts of the chain are not here yet")
        raise StorageError(
            f"the stored accounts do not lead to the state root of block {header.height}"
        )
    return proof


# --- reading JSON --------------------------------------------------------------------------


def _parse(text: str) -> object:
    if len(text) > MAX_PROOF_SIZE:
        raise DecodeError(f"a proof of {len(text)} characters, at most {MAX_PROOF_SIZE}")
    try:
        return json.loads(text, object_pairs_hook=_without_duplicates)
    except DecodeError:
        raise
    except (ValueError, RecursionError) as error:
        raise DecodeError(f"not JSON: {error}") from error


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A name given twice would silently mean its last value."""
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise DecodeError(f"{_short(name)}: given twice")
        found[name] = value
    return found


def _fields(what: str, value: object, *names: str) -> dict[str, Any]:
    """An object with exactly these fields."""
    if not isinstance(value, dict):
        raise DecodeError(f"{what}: must be a JSON object")
    for name in names:
        if name not in value:
            raise DecodeError(f"{what}: {name} is missing")
    for name in value:
        if name not in names:
            raise DecodeError(f"{what}: no such field: {_short(name)}")
    return value


def _short(text: object) -> str:
    """As much of a stranger's text as an error may quote."""
    shown = repr(text)
    return shown if len(shown) <= 40 else shown[:40] + "…"


def _hex(name: str, text: Any, *sizes: int) -> bytes:
    fits = isinstance(text, str) and len(text) in [2 * size for size in sizes]
    if fits and all(c in "0123456789abcdef" for c in text):
        return bytes.fromhex(text)
    wanted = " or ".join(str(2 * size) for size in sizes)
    raise DecodeError(f"{name}: {_short(text)} is not {wanted} lower-case hex digits")


def _address(text: object) -> bytes:
    if not isinstance(text, str) or not text.startswith("0x"):
        raise DecodeError(f"address: {_short(text)} does not begin with 0x")
    return _hex("address", text[2:], 20)


def _account(value: object) -> Account | None:
    if value is None:
        return None
    fields = _fields("account", value, "nonce", "balance")
    nonce, balance = fields["nonce"], fields["balance"]
    if type(nonce) is not int or not 0 <= nonce < 1 << 64:
        raise DecodeError(f"account.nonce: {_short(nonce)} is not an integer of 64 bits")
    if not _is_decimal(balance) or int(balance) >= 1 << 128:
        raise DecodeError(f"account.balance: {_short(balance)} is not the digits of 128 bits")
    account = Account(nonce=nonce, balance=int(balance))
    if account.is_empty:
        raise DecodeError("account: one of nonce 0 and balance 0 does not exist; it must be null")
    return account


def _is_decimal(text: object) -> bool:
    return (
        isinstance(text, str)
        and text.isascii()
        and text.isdecimal()
        and len(text) <= 39
        and (text == "0" or text[0] != "0")
    )


def _header(value: object) -> BlockHeader:
    fields = _fields("block", value, "height", "hash", "state_root", "header")
    encoded = fields["header"]
    if not isinstance(encoded, str) or len(encoded) > 2 * MAX_HEADER_SIZE:
        raise DecodeError(f"block.header: must be at most {2 * MAX_HEADER_SIZE} hex digits")
    raw = _hex("block.header", encoded, len(encoded) // 2)
    try:
        header = BlockHeader.decode(raw)
    except DecodeError as error:
        raise DecodeError(f"block.header: {error}") from error
    if type(fields["height"]) is not int or fields["height"] != header.height:
        raise DecodeError("block.height: is not the header's")
    for name, digest in (("hash", header.hash), ("state_root", header.state_root)):
        if _hex(f"block.{name}", fields[name], 32) != digest:
            raise DecodeError(f"block.{name}: is not the header's")
    return header
