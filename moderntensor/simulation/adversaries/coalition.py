"""Validators that have turned hostile together, and the branches that their keys allow."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import TYPE_CHECKING, Final

from ...blockchain.block import BlockHeader
from ...blockchain.crypto import KeyPair

if TYPE_CHECKING:
    from ...blockchain.chain import Blockchain

__all__ = ["Coalition"]

MAX_MADE: Final = 4096  # headers of its own that it remembers and serves


class Coalition:
    """Makes empty blocks in the slots of `keys`, on any parent, as often as it likes.

    `watched` gives the chain that it stands on by now: it sees what its victims see.
    """

    def __init__(
        self,
        watched: Callable[[], Blockchain],
        keys: Sequence[KeyPair],
        random: Random,
        on_invalid: Callable[[bytes], None],
    ) -> None:
        """`on_invalid` is told the hash of each block that it makes against a rule."""
        self.watched = watched
        self._keys = {key.public_key: key for key in keys}
        self._random = random
        self._on_invalid = on_invalid
        self.made: dict[bytes, BlockHeader] = {}
        self.equivocations = 0
        self._signed: set[tuple[int, bytes]] = set()

    def branch(
        self, now: float, depth: int, length: int, *, false_at: int | None = None
    ) -> list[BlockHeader]:
        """Up to `length` headers on the block `depth` below the head, in the first slots of theirs
        that have begun by `now` (Unix seconds): those that are left make the next branch long. From
        number `false_at` on they have a state root that nothing leads to."""
        chain = self.watched()
        config = chain.config
        parent = chain.get_header(max(0, chain.head.height - depth))
        if parent is None:
            return []
        last = config.slot_of(int(now))
        slot = config.slot_of(parent.timestamp) + 1
        made: list[BlockHeader] = []
        while slot <= last and len(made) < length:
            key = self._key_of(slot, config.validator_at(slot))
            if key is not None:
                false = false_at is not None and len(made) >= false_at
                parent = self._sign(parent, slot, key, false=false)
                made.append(parent)
            slot += 1
        return made

    def line(self, tip: BlockHeader | None) -> list[BlockHeader]:
        """The branch that ends in `tip` down to where it leaves the chain, lowest first."""
        found: list[BlockHeader] = []
        header = tip
        while header is not None:
            found.append(header)
            header = self.made.get(header.previous_hash)
        return found[::-1]

    def _key_of(self, slot: int, validator: bytes | None) -> KeyPair | None:
        if validator is None:  # open rules: anybody may sign
            return self._random.choice(list(self._keys.values()))
        return self._keys.get(validator)

    def _sign(self, parent: BlockHeader, slot: int, key: KeyPair, *, false: bool) -> BlockHeader:
        config = self.watched().config
        header = BlockHeader(
            height=parent.height + 1,
            timestamp=config.timestamp + slot * config.block_time,
            previous_hash=parent.hash,
            state_root=self._random.randbytes(32) if false else parent.state_root,
            validator=key.public_key,
            gas_limit=config.gas_limit,
            extra_data=self._random.randbytes(8),
        ).sign(key)
        if false:
            self._on_invalid(header.hash)
        place = header.height, key.public_key
        self.equivocations += place in self._signed
        self._signed.add(place)
        self.made[header.hash] = header
        if len(self.made) > MAX_MADE:
            del self.made[next(iter(self.made))]
        return header
