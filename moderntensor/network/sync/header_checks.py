"""What every batch of headers goes through before it is stored."""

from __future__ import annotations

from functools import partial
from typing import Final

from ...backend import headers as engine
from ...blockchain.chain import Blockchain
from ...blockchain.rules import verify_header_signatures
from ...errors import HeaderChainError, InvalidBlockError
from ...runtime import Runtime
from ..blame import offence_of_rule
from ..offences import Offence
from .source import Misbehaviour

HeaderBatch = engine.HeaderBatch
Anchor = engine.Anchor

# Signatures per worker call: some 14 ms, and up to 5 to get the GIL. They are checked together:
# slices of 192 took a third longer.
SIGNATURE_SLICE: Final = 512


class SkeletonFalse(Exception):  # noqa: N818  (an outcome, no error)
    """A good range proves that the skeleton is not one chain. `start` is the height that it
    stands on."""

    def __init__(self, start: int) -> None:
        self.start = start
        super().__init__(start)


class FutureHeaders(Exception):  # noqa: N818  (an outcome, no error)
    """A range runs ahead of our clock; nobody is to blame."""


def bad_signature(height: int) -> Misbehaviour:
    """What convicts a peer of a header that nobody has signed."""
    return Misbehaviour(Offence.BAD_SIGNATURE, f"header {height}: bad signature")


def covered_to(chain: Blockchain, end: int) -> int:
    """The height of the last checkpoint that headers up to height `end` should reach, or of
    `assume_valid` unless the candidate has another block there; 0 for none."""
    config = chain.config
    heights = sorted(at for at in config.covering_heights if at <= end)
    if heights and heights[-1] not in config.checkpoints and config.assume_valid is not None:
        height = heights[-1]
        if chain.header_head.height >= height and not chain.has_header(*config.assume_valid):
            heights.pop()
    return heights[-1] if heights else 0


class HeaderChecker:
    """What every batch goes through before it is stored: rules, then signatures in threads."""

    def __init__(self, chain: Blockchain, runtime: Runtime) -> None:
        self._chain = chain
        self._runtime = runtime

    @property
    def now(self) -> int:
        """Unix seconds."""
        return int(self._runtime.wall_time())

    async def first_bad(self, batch: HeaderBatch, start: int = 0) -> int | None:
        """The index of the first header from `start` on whose signature is bad, if one is."""
        found = await self._runtime.run_bulk_each(
            partial(
                verify_header_signatures,
                batch,
                i,
                min(i + SIGNATURE_SLICE, len(batch)),
                self._runtime.signatures,
            )
            for i in range(start, len(batch), SIGNATURE_SLICE)
        )
        return next((bad for bad in found if bad is not None), None)

    async def signatures(self, batch: HeaderBatch, trusted_to: int) -> None:
        """Raises Misbehaviour at the first bad one above height `trusted_to`."""
        bad = await self.first_bad(batch, max(0, trusted_to + 1 - batch.height(0)))
        if bad is not None:
            raise bad_signature(batch.height(bad))

    async def pins(self, skeleton: HeaderBatch, trusted_to: int) -> None:
        """Check what headers that stand apart can be told by, those above height `trusted_to`: a
        false one would have every other peer refuse the range below it, one after the other. Raises
        Misbehaviour."""
        config, first = self._chain.config, len(skeleton)
        for i in reversed(range(len(skeleton))):
            if skeleton.height(i) <= trusted_to:
                break
            first = i
            turn = config.validator_at(config.slot_of(skeleton.timestamp(i)))
            if turn not in (None, skeleton.validator(i)):
                error = HeaderChainError(i, skeleton.height(i), "validator")
                raise Misbehaviour(Offence.BAD_HEADER, str(error))
        bad = await self.first_bad(skeleton, first)
        if bad is not None:
            raise bad_signature(skeleton.height(bad))

    async def attached(self, batch: HeaderBatch, trusted_to: int) -> tuple[Anchor, HeaderBatch]:
        """Check a batch that must begin after a header that we know, signatures above height
        `trusted_to` only. Returns where, and the batch without what lies in the future. Raises
        UnknownParentError, FinalityError and Misbehaviour."""
        now = self.now
        while len(batch):
            try:
                anchor = await self._runtime.run(self._chain.check_headers, batch, now)
            except InvalidBlockError as error:
                raise Misbehaviour(Offence.INVALID_CHAIN, str(error)) from error
            except HeaderChainError as error:
                offence = offence_of_rule(error)
                if offence is not None:
                    raise Misbehaviour(offence, str(error)) from error
                batch = batch[: error.index]  # which is looked at again: for invalid ones, say
            else:
                await self.signatures(batch, trusted_to)
                return anchor, batch
        raise FutureHeaders

    async def segment(
        self, data: bytes, anchor: Anchor, end_hash: bytes, trusted_to: int
    ) -> HeaderBatch:
        """Check a range between two pins, signatures above height `trusted_to` only. Raises
        Misbehaviour, SkeletonFalse, FutureHeaders."""
        batch = await self._runtime.run(self._rules, data, anchor, end_hash)
        await self.signatures(batch, trusted_to)
        return batch

    def _rules(self, data: bytes, anchor: Anchor, end_hash: bytes) -> HeaderBatch:
        batch = HeaderBatch.from_concatenated(data)
        # Linked among themselves and ending in the pin: then the first parent is as true.
        if batch.hash(-1) != end_hash:
            raise Misbehaviour(
                Offence.BAD_HEADER,
                f"headers from {anchor.height + 1} on that do not end in their pin",
            )
        good, rule = batch.check_prefix(anchor, self._chain.config.rules, self.now)
        if rule == "future":
            raise FutureHeaders
        if rule == "previous_hash" and good == 0:
            # The pin it begins at may be false in every way, so nothing of it counts here.
            own = Anchor(batch.previous_hash(0), anchor.height, self._chain.config.timestamp)
            if batch.check_prefix(own, self._chain.config.rules, self.now)[1] in (None, "future"):
                raise SkeletonFalse(anchor.height)
        if rule is not None:
            error = HeaderChainError(good, anchor.height + 1 + good, rule)
            raise Misbehaviour(offence_of_rule(error) or Offence.BAD_HEADER, str(error))
        return batch
