"""Chains made to measure: deterministic, signed, full of transfers, for demos and tests."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from ..errors import ConfigError
from .block import Block
from .branch import BranchWriter
from .chain import Blockchain
from .chain_types import ChainHead
from .crypto import KeyPair, sha256
from .genesis import ChainConfig
from .lookup import one
from .prepared import body_of_block
from .rehearsal import Draft, assemble, execute_draft
from .transaction import Transaction

DEFAULT_BATCH: Final = 512  # blocks per commit
DEFAULT_BALANCE: Final = 10**18
DEFAULT_TIMESTAMP: Final = 1_700_000_000  # 2023-11-14; chains of any length lie in the past


def demo_keys(count: int, label: str = "account") -> list[KeyPair]:
    """`count` keys that everybody can compute: for demos and tests, never for money."""
    return [
        KeyPair.from_secret(sha256(f"moderntensor/demo/{label}/{i}".encode())) for i in range(count)
    ]


def demo_config(
    accounts: Sequence[KeyPair],
    validators: Sequence[KeyPair] = (),
    *,
    chain_id: int = 1,
    timestamp: int = DEFAULT_TIMESTAMP,
    block_time: int = 1,
    checkpoints: Mapping[int, bytes] | None = None,
    max_reorg_depth: int = 128,
) -> ChainConfig:
    """A chain on which each of these accounts owns `DEFAULT_BALANCE`. One block a second leaves
    room for many between `timestamp` and now."""
    return ChainConfig(
        chain_id=chain_id,
        timestamp=timestamp,
        block_time=block_time,
        validators=tuple(key.public_key for key in validators),
        alloc={key.address: DEFAULT_BALANCE for key in accounts},
        checkpoints=checkpoints or {},
        max_reorg_depth=max_reorg_depth,
    )


def build_chain(
    chain: Blockchain,
    *,
    validators: Sequence[KeyPair],
    accounts: Sequence[KeyPair] = (),
    blocks: int,
    transfers_per_block: int = 0,
    transfers: int | None = None,
    new_accounts: int = 0,
    recipients: Sequence[bytes] = (),
    data_bytes: int = 0,
    batch: int = DEFAULT_BATCH,
) -> Iterator[ChainHead]:
    """Put `blocks` more blocks on `chain`, each with so many transfers between `accounts`.

    `transfers` gives their number in all instead, spread evenly over the blocks. With
    `new_accounts`, so many of them, spread evenly too, go to addresses that nobody has used, and
    each of the others to one of those, picked all over the state; with `recipients`, addresses,
    they go to these in turn. ValueError for both, or for more new accounts than transfers. Each
    carries `data_bytes` of data: bytes to send without more signatures to check.

    Yields the head after each commit of `batch` blocks. The same arguments on the same chain
    give the same blocks, one per slot. `validators` holds a key for every slot of the chain's
    round (on an open network they take turns); nobody else may write meanwhile.
    """
    total = transfers_per_block * blocks if transfers is None else transfers
    if total and len(accounts) < 2:
        raise ValueError("transfers need two accounts")
    if new_accounts > total:
        raise ValueError(f"{total} transfers cannot make {new_accounts} accounts")
    if new_accounts and recipients:
        raise ValueError("either new accounts or given recipients")
    signers = _Signers(chain.config, validators)
    work = _Transfers(chain, accounts, total, new_accounts, recipients, data_bytes)
    done = 0
    while done < blocks:
        size = min(batch, blocks - done)
        with chain.extending(size) as writer:
            for _ in range(size):
                done += 1
                _extend(writer, chain.config, signers, work.up_to(total * done // blocks))
        yield chain.head


def _extend(
    writer: BranchWriter,
    config: ChainConfig,
    signers: _Signers,
    transactions: tuple[Transaction, ...],
) -> None:
    slot = config.slot_of(writer.head.timestamp) + 1
    key = signers.of(slot)
    draft = Draft(key.public_key, config.timestamp + slot * config.block_time, transactions)
    included, results = execute_draft(writer, draft)
    unsigned = assemble(writer.head, config, draft, included, results)
    block = Block(header=unsigned.header.sign(key), transactions=included)
    raw = block.header.encode()
    head = ChainHead(block.height, one(raw).hash(0), draft.timestamp, results[2])
    writer.record(head, raw, body_of_block(block))


class _Signers:
    """Whose key signs which slot."""

    def __init__(self, config: ChainConfig, keys: Sequence[KeyPair]) -> None:
        known = {key.public_key: key for key in keys}
        if not keys or any(public_key not in known for public_key in config.validators):
            raise ConfigError("validators: a chain is built with the keys of all of them")
        self._round = [known[public_key] for public_key in config.validators] or list(keys)

    def of(self, slot: int) -> KeyPair:
        return self._round[slot % len(self._round)]


class _Transfers:
    """A run of transfers, their senders in turn, amounts always varying.

    Without new accounts or given recipients, each account pays the next but some.
    """

    def __init__(
        self,
        chain: Blockchain,
        accounts: Sequence[KeyPair],
        total: int,
        new_accounts: int,
        recipients: Sequence[bytes],
        data_bytes: int,
    ) -> None:
        self._chain_id = chain.config.chain_id
        self._accounts = accounts
        self._nonces = [chain.get_account(key.address).nonce for key in accounts]
        self._before = sum(self._nonces)  # what one run made, no later one makes again
        self._total = total
        self._new = new_accounts
        self._recipients = recipients
        self._data_bytes = data_bytes
        self._done = 0

    def up_to(self, count: int) -> tuple[Transaction, ...]:
        """Those that are left of the first `count`, signed."""
        return tuple(self._next() for _ in range(count - self._done))

    def _next(self) -> Transaction:
        n = self._before + self._done
        sender = n % len(self._accounts)
        transaction = Transaction.create(
            self._accounts[sender],
            chain_id=self._chain_id,
            nonce=self._nonces[sender],
            to=self._recipient(n),
            value=1 + n % 1000,
            data=self._data(n),
        )
        self._nonces[sender] += 1
        self._done += 1
        return transaction

    def _data(self, n: int) -> bytes:
        block = sha256(b"data/%d" % n)
        return (block * (self._data_bytes // len(block) + 1))[: self._data_bytes]

    def _recipient(self, n: int) -> bytes:
        if self._new:
            return self._new_recipient()
        if self._recipients:
            return self._recipients[self._done % len(self._recipients)]
        size = len(self._accounts)
        return self._accounts[(n + 1 + n // size % (size - 1)) % size].address

    def _new_recipient(self) -> bytes:
        """One more account, or any of those made so far, so that `_new` of `_total` make one."""
        made = -(-self._done * self._new // self._total)
        if (self._done + 1) * self._new > made * self._total:
            return self._address(made)
        picked = int.from_bytes(sha256(b"%d/%d" % (self._before, self._done))[:8], "big")
        return self._address(picked % made)

    def _address(self, number: int) -> bytes:
        """Of an account that receives only: nobody has its key."""
        return sha256(b"moderntensor/workload/%d/%d" % (self._before, number))[:20]
