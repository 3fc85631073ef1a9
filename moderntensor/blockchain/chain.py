"""The chain: headers and blocks go in, the longest valid chain is executed, everything is kept.

Fork choice: the longest valid chain, the first seen at equal length, never undoing more than
`max_reorg_depth` blocks nor one below a checkpoint. What a call changes is one commit.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

from ..errors import HeaderChainError, InvalidBlockError
from ..runtime import Runtime
from ..storage import ReadTransaction, Store, WriteTransaction
from . import adoption, backlog, candidates, evidence, provisional, rehearsal, side, tables
from .block import EMPTY_BODY, MAX_BLOCK_SIZE, Block
from .branch import BranchWriter
from .chain_counts import ChainCounts
from .chain_reader import ChainReader
from .chain_types import AppliedBatch, ChainHead, HeadChanged, ImportResult
from .condemned import condemn
from .genesis import ChainConfig
from .invalid import InvalidBlocks
from .listeners import HeadListeners
from .lookup import (
    Anchor,
    HeaderBatch,
    find_header,
    head_of,
    one,
    pending_headers,
)
from .opening import open_chain
from .prepared import PreparedBody, body_of_block, prepare_bodies
from .rules import verify_header_signatures
from .staging import StateStaging
from .state import state_is_here
from .state_slots import clear_unused
from .transaction import Transaction, identify

__all__ = ["AppliedBatch", "Blockchain", "ChainHead", "HeadChanged", "ImportResult"]

log = logging.getLogger(__name__)


class Blockchain(ChainReader):
    """One chain in one store. All methods are synchronous and safe on any thread: writers take
    turns, readers see the last commit meanwhile."""

    def __init__(
        self, store: Store, config: ChainConfig, *, runtime: Runtime | None = None
    ) -> None:
        """Open the chain in `store`, beginning it with the genesis block if the store is empty.

        The store stays the caller's to close. StorageError where it holds another chain, with
        nothing written; ConfigError where a checkpoint contradicts what it holds.
        """
        super().__init__(store, config)
        self._runtime = runtime or Runtime()
        self._lock = threading.RLock()
        self._listeners = HeadListeners()
        self.counts = ChainCounts()
        self._head = open_chain(store, config)
        with store.read() as txn:
            self._invalid = InvalidBlocks(txn)
            self._note_earliest(txn)
        self._header_head = self._head
        self._note_candidate()

    @property
    def head(self) -> ChainHead:
        """The end of the executed chain."""
        return self._head

    @property
    def header_head(self) -> ChainHead:
        """The end of the pending headers, or the executed head where there are none."""
        return self._header_head

    @property
    def has_state(self) -> bool:
        """Whether the accounts are here: while the genesis gives their root alone, and none were
        loaded or fetched, all seem empty and no block can be executed (StateMissingError)."""
        with self.store.read() as txn:
            return state_is_here(txn, self._head.state_root)

    def is_invalid(self, block_hash: bytes) -> bool:
        """Whether the block of this hash is remembered as breaking a rule."""
        return block_hash in self._invalid

    def trust(self, height: int, block_hash: bytes) -> None:
        """From now on the chain must have this block, as if it were a checkpoint of `config`.
        ConfigError, and nothing changes, where the chain or another checkpoint contradicts it."""
        with self._lock:
            config = self.config.trusting(height, block_hash)
            open_chain(self.store, config)
            self.config = config
            self._note_candidate()

    def subscribe(self, callback: Callable[[HeadChanged], object]) -> Callable[[], None]:
        """Call `callback` after every commit that moves the head, on the writing thread, in
        order. Returns what ends it. An exception in it is logged: the commit stands."""
        return self._listeners.add(callback)

    # --- headers ----------------------------------------------------------------------------

    def check_headers(self, batch: HeaderBatch, now: int | None = None) -> Anchor:
        """Where a batch attaches to what is known, every rule but the signatures checked.

        `now` is Unix seconds, by default the runtime's. The anchor is the header under the
        first that is new (the last of the batch, if none is). UnknownParentError,
        HeaderChainError; FinalityError for a branch that this node may not follow, or against
        a checkpoint; InvalidBlockError where a header is remembered as invalid.
        """
        with self.store.read() as txn:
            return self._attach(txn, batch, now).anchor

    def add_headers(
        self, batch: HeaderBatch, *, signatures_checked: bool = False, trusted_to: int = 0
    ) -> int:
        """Keep headers whose bodies will come later; how many were new.

        They become, or extend, the pending headers if that makes those longer than all that is
        known; otherwise nothing is kept and 0 returned. Raises as `check_headers`; signatures
        are verified as well unless the caller has done so (`verify_header_signatures`).

        `trusted_to` is the height of a checkpoint, or of `assume_valid`: of headers up to there
        no signatures are verified. They are provisional, and no bodies are applied to them, until
        the pending headers have reached such a block above them, or `confirm_headers`.
        """
        if not len(batch):
            return 0
        if trusted_to and trusted_to not in self.config.covering_heights:
            raise ValueError(f"there is no checkpoint at height {trusted_to}")
        with self._lock:
            with self.store.read() as txn:
                place = self._attach(txn, batch, None)
                signed = max(place.skip, min(len(batch), trusted_to + 1 - batch.height(0)))
                proven = evidence.look(txn, self.config, batch, signed, self._header_head.height)
            if not signatures_checked:
                bad = verify_header_signatures(batch, signed, None, self._runtime.signatures)
                if bad is not None:
                    raise HeaderChainError(bad, batch.height(bad), "signature")
            evidence.keep(self.store, proven)
            if place.anchor.height + len(batch) - place.skip <= self._header_head.height:
                return 0
            with self.store.write() as write:
                added = candidates.extend(write, self.config, batch, place, trusted_to)
            self._note_candidate()
            return added

    def confirm_headers(self, batch: HeaderBatch) -> None:
        """The signatures of `batch`, the first of the provisional headers, are good. ValueError
        where those are others."""
        with self._lock, self.store.write() as txn:
            first = provisional.first_height(txn)
            if not len(batch) or first != batch.height(0):
                raise ValueError("not where the provisional headers begin")
            if pending_headers(txn, first, len(batch)).hashes() != batch.hashes():
                raise ValueError("the provisional headers are others by now")
            provisional.confirmed(txn, batch.height(-1))

    def drop_pending(self, from_height: int) -> None:
        """Forget the pending headers at `from_height` and above."""
        with self._lock:
            with self.store.write() as txn:
                candidates.cut(txn, from_height, self._head.height)
            self._note_candidate()

    # --- blocks -----------------------------------------------------------------------------

    def apply_bodies(
        self,
        start_height: int,
        bodies: Sequence[bytes | PreparedBody],
        *,
        hashes: Sequence[bytes] | None = None,
    ) -> AppliedBatch:
        """Execute the pending headers from `start_height` on with these bodies: one commit.

        `start_height` must be where the pending headers begin. Where that is not above the head
        it is a reorganisation, and the bodies must reach beyond the head. Bodies may be raw, or
        prepared on other threads (`prepare_bodies`), which spares this one most of the work.
        `hashes`, if given, are the blocks that the caller means.

        StaleBodiesError, with nothing done, where the pending headers are others by now.
        InvalidBlockError for the first block that breaks a rule, after the good ones before it
        are committed, if they make a longer chain. Where only the body is wrong (`body_only`)
        nothing else happens; else the block and what stands on it are remembered as invalid.
        """
        with self._lock:
            with self.store.read() as txn:
                batch = candidates.to_apply(txn, self._head, start_height, len(bodies), hashes)
            memo = self._runtime.signatures
            raw = iter(prepare_bodies((b for b in bodies if isinstance(b, bytes)), memo))
            prepared = [next(raw) if isinstance(body, bytes) else body for body in bodies]
            return self._advance(start_height - 1, batch, prepared, indexed=True)

    def import_block(self, block: Block) -> ImportResult:
        """Take in one whole block: extend the head, reorganise, or keep it on its branch.

        UnknownParentError where what it stands on is unknown, or known as a header only;
        HeaderChainError, FinalityError and InvalidBlockError as for headers and bodies.
        """
        with self._lock:
            return self._import(block)

    def _import(self, block: Block) -> ImportResult:
        batch = one(block.header.encode())
        raw, block_hash, height = batch.raw(0), batch.hash(0), batch.height(0)
        with self.store.read() as txn:
            known = find_header(txn, block_hash)
            if known is not None and (
                known.place == tables.CANONICAL or side.holds(txn, height, block_hash)
            ):
                return ImportResult.KNOWN
            self._attach(txn, batch, None)
            path = side.path_to(txn, batch.previous_hash(0))
            candidates.check_finality(txn, self.config, self._head, path.fork)
            checked = known is not None and not provisional.holds(txn, known)
            proven = evidence.look(txn, self.config, batch, checked, self._header_head.height)
            below = [
                txn.get(tables.BODIES, tables.block_key(at, below_hash)) or EMPTY_BODY
                for at, below_hash, _ in path.headers
            ]
        memo = self._runtime.signatures
        if not checked and verify_header_signatures(batch, memo=memo) is not None:
            raise HeaderChainError(0, height, "signature")
        evidence.keep(self.store, proven)
        body = body_of_block(block)
        if body.root != batch.txs_root(0):
            raise InvalidBlockError(
                height, block_hash, "body", "is not its header's", body_only=True
            )
        size = len(raw) + len(body.raw)
        if size > MAX_BLOCK_SIZE:
            detail = f"{size} bytes, at most {MAX_BLOCK_SIZE}"
            error = InvalidBlockError(height, block_hash, "size", detail)
            with self.store.write() as write:
                condemn(write, self._invalid, error, (), self._head.height)
            self._note_candidate()
            raise error
        if height <= self._head.height:
            with self.store.write() as write:
                side.add(write, height, block_hash, raw, body.raw)
            return ImportResult.SIDE
        branch = HeaderBatch.join([*(header for _, _, header in path.headers), raw])
        identify(block.transactions, memo)
        bodies = [*prepare_bodies(below, memo), body]
        self._advance(path.fork, branch, bodies, indexed=False)
        return ImportResult.APPLIED

    # --- without executing ------------------------------------------------------------------

    def adopt_state(self, staging: StateStaging) -> AppliedBatch:
        """Go on from the pivot of a state that was fetched, and is whole, as the head: one
        commit. `blocks` of what is returned are those that the head moved over.

        The pivot is final then. Blocks that it takes off the chain are reverted; the bodies of
        those before it stay missing until `add_old_bodies`. StaleStateError, with nothing done,
        where the state is not whole or the checked headers do not lead to the pivot by now;
        FinalityError where that would undo what may not be undone.
        """
        with self._lock:
            with self.store.write() as txn:
                adopted = adoption.adopt(txn, self.config, self._head, staging)
            staging.released()
            applied = ((adopted.head.height, adopted.head.hash),)
            with self.store.read() as read:
                self._note_earliest(read)
            done = self._announce(adopted.head, applied, adopted.undone)
        clear_unused(self.store)
        return done._replace(blocks=adopted.blocks)

    def add_old_bodies(self, first: int, bodies: Sequence[PreparedBody]) -> None:
        """Keep the bodies of blocks from height `first` to right below `earliest_height`, which
        becomes `first`: one commit. They are indexed, and not executed: a later state is proved.

        ValueError where they end elsewhere; InvalidBlockError, with nothing done, for the first
        body that is not its header's (`body_only`), or cannot be one.
        """
        with self._lock:
            with self.store.write() as txn:
                backlog.add(txn, first, bodies)
            self.earliest_height = first

    # --- what would be ----------------------------------------------------------------------

    def try_block(self, block: Block) -> None:
        """Execute a block on top of the head and keep nothing; its header is not checked.

        InvalidBlockError names the rule that it breaks; UnknownParentError where it does not
        stand on the head, for only there is the state at hand.
        """
        with self._lock:
            rehearsal.try_block(self.store, self.config, self._head, block)

    def draft_block(
        self,
        validator: bytes,
        timestamp: int,
        transactions: Iterable[Transaction],
        *,
        skip_invalid: bool = False,
    ) -> Block:
        """The next block after the head, unsigned, under the x-only key `validator`.

        InvalidTransactionError for a transaction that breaks a rule; with `skip_invalid` it is
        left out instead, like one for which there is no room.
        """
        with self._lock:
            return rehearsal.draft_block(
                self.store,
                self.config,
                self._head,
                rehearsal.Draft(validator, timestamp, tuple(transactions), skip_invalid),
            )

    @contextmanager
    def extending(self, blocks: int) -> Iterator[BranchWriter]:
        """One commit of `blocks` blocks that the caller makes itself, on top of the head.

        For those who build chains: what `BranchWriter.record` is given is not checked.
        ValueError, and nothing is committed, if they are not as many as that.
        """
        with self._lock:
            with self.store.write() as txn:
                writer = BranchWriter(txn, self.config, self._head, self._head.height + blocks)
                yield writer
                if len(writer.applied) != blocks:
                    raise ValueError(f"{len(writer.applied)} blocks were made, not {blocks}")
                writer.finish()
            self._publish(writer)

    # --- within the lock --------------------------------------------------------------------

    def _advance(
        self, fork: int, batch: HeaderBatch, bodies: Sequence[PreparedBody], *, indexed: bool
    ) -> AppliedBatch:
        """Replace what the executed chain has above height `fork` by these blocks."""
        try:
            with self.store.write() as txn:
                writer = self._move(txn, fork, batch, bodies, indexed=indexed)
        except InvalidBlockError as error:
            self._settle(fork, batch, bodies, error, indexed=indexed)
            raise
        return self._publish(writer)

    def _move(
        self,
        txn: WriteTransaction,
        fork: int,
        batch: HeaderBatch,
        bodies: Sequence[PreparedBody],
        *,
        indexed: bool,
    ) -> BranchWriter:
        writer = BranchWriter(txn, self.config, self._head, fork + len(batch))
        if fork < self._head.height:
            writer.undo_to(fork)
        writer.apply(batch, bodies, indexed=indexed)
        writer.finish()
        return writer

    def _settle(
        self,
        fork: int,
        batch: HeaderBatch,
        bodies: Sequence[PreparedBody],
        error: InvalidBlockError,
        *,
        indexed: bool,
    ) -> None:
        """After an invalid block: keep the good ones before it, remember the bad one."""
        good = error.height - fork - 1
        writer = None
        with self.store.write() as txn:
            if fork + good > self._head.height:
                writer = self._move(txn, fork, batch[:good], bodies[:good], indexed=indexed)
            if not error.body_only:
                if writer is None:
                    for i in range(good):  # a branch that is not longer, now that it ends here
                        side.add(txn, fork + 1 + i, batch.hash(i), batch.raw(i), bodies[i].raw)
                height = self._head.height if writer is None else writer.head.height
                condemn(txn, self._invalid, error, batch[good + 1 :].hashes(), height)
        if writer is not None:
            self._publish(writer)
        self._note_candidate()
        log.warning("%s%s", error, "" if error.body_only else "; remembered as invalid")

    def _publish(self, writer: BranchWriter) -> AppliedBatch:
        self.counts.executed(len(writer.applied), writer.transactions)
        done = self._announce(writer.head, tuple(writer.applied), writer.undone)
        return done._replace(transactions=writer.transactions)

    def _announce(
        self, head: ChainHead, applied: tuple[tuple[int, bytes], ...], undone: Sequence[bytes]
    ) -> AppliedBatch:
        """After the commit: move the head that others see, and tell them."""
        self._head = head
        self._note_candidate()
        reverted = tuple((undid.height, undid.hash) for undid in map(head_of, undone))
        if reverted:
            self.counts.reorganised(len(reverted))
            log.info("reorganised: %d blocks undone, head is now %s", len(reverted), head)
        self._listeners.tell(HeadChanged(head, applied, reverted))
        return AppliedBatch(len(applied), 0, head, len(reverted))

    def _note_candidate(self) -> None:
        with self.store.read() as txn:
            last = txn.last(tables.PENDING)
        self._header_head = self._head if last is None else head_of(last[1])

    def _attach(
        self, txn: ReadTransaction, batch: HeaderBatch, now: int | None
    ) -> candidates.Attachment:
        return candidates.attach(
            txn,
            batch,
            int(self._runtime.wall_time()) if now is None else now,
            config=self.config,
            head=self._head,
            invalid=self._invalid,
        )
