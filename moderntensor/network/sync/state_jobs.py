"""Jobs of the window that fetch a state: nodes of its tree, and the accounts of subtrees."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from ...backend import merkle
from ...blockchain.staging import Hole, Pivot
from ...blockchain.state_tree import FilledState
from ...errors import DecodeError
from ...runtime import Runtime
from ..messages import GetStateMessage, GetStateNodesMessage, StateMessage, StateNodesMessage
from ..offences import Offence
from ..protocol import MAX_STATE_ACCOUNTS
from .source import Kind, Misbehaviour, Refused, Source, TooLarge
from .sources import SourcePool
from .state_plan import verified_nodes
from .window import Attempt, Job

RECORD_BYTES: Final = 108  # of an account as it travels
# Memory of an account that waits to be stored: its key and its record as objects, the pair, and
# its part of the nodes.
ACCOUNT_BYTES: Final = 360
NODE_BYTES: Final = 80
_COUNT: Final = 4  # bytes of the count before the records of a reply


class Wanted:
    """Whose state is fetched, through whom, and who has said that they do not have it."""

    def __init__(self, pool: SourcePool, runtime: Runtime, pivot: Pivot) -> None:
        self.pool = pool
        self.runtime = runtime
        self.pivot = pivot
        self.refused: set[Source] = set()

    async def ask_state(self, attempt: Attempt, hole: Hole) -> FilledState:
        """The accounts of a hole, verified."""
        source = attempt.source
        request = GetStateMessage(
            block_hash=self.pivot.block_hash, depth=hole.depth, prefix=hole.prefix
        )
        reply = await self.pool.ask(source, request, StateMessage)
        attempt.answered()
        arrived = self.pool.now()
        state: FilledState | None = None
        if hole.count in (0, reply.count):
            state = await self.runtime.run(_rebuild, reply.accounts, hole)
        if state is None:
            raise _falsity("the accounts", hole)
        size = len(reply.accounts)
        self.pool.delivered(source, Kind.STATE, state.count, size, arrived - attempt.moved)
        attempt.moved = self.pool.now()
        return state

    async def ask_nodes(self, attempt: Attempt, holes: Sequence[Hole]) -> list[tuple[Hole, bytes]]:
        """The nodes of the first of the holes, verified, at least one."""
        source = attempt.source
        request = GetStateNodesMessage(
            block_hash=self.pivot.block_hash,
            paths=tuple((hole.depth, hole.prefix) for hole in holes),
        )
        reply = await self.pool.ask(source, request, StateNodesMessage)
        if not reply.nodes:
            raise Refused  # and what it is asked for instead it owes
        attempt.answered()
        arrived = self.pool.now()
        found = await self.runtime.run(verified_nodes, holes, reply)
        if isinstance(found, Hole):
            raise _falsity("the node", found)
        size = len(found) * NODE_BYTES
        self.pool.delivered(source, Kind.NODES, len(found), size, arrived - attempt.moved)
        attempt.moved = self.pool.now()
        return found


class NodesJob(Job):
    """The nodes of some holes."""

    kind = Kind.NODES

    def __init__(self, wanted: Wanted, holes: Sequence[Hole]) -> None:
        super().__init__(wanted.pivot.height)
        self._wanted = wanted
        self._holes = holes
        self.refused = wanted.refused
        self.snapshot = wanted.pivot[:2]
        self.reply_bytes = len(holes) * NODE_BYTES
        self.found: list[tuple[Hole, bytes]] = []

    async def fetch(self, attempt: Attempt) -> None:
        """As many as the peer's pace allows; another attempt gets the rest."""
        start = len(self.found)
        size = self._wanted.pool.size(attempt.source, Kind.NODES, len(self._holes) - start)
        found = await self._wanted.ask_nodes(attempt, self._holes[start : start + size])
        if len(self.found) != start:
            return  # a second peer was quicker
        self.found += found
        self.held_bytes = len(self.found) * NODE_BYTES
        self.done = len(self.found) == len(self._holes)


class AccountsJob(Job):
    """The accounts of one hole."""

    kind = Kind.STATE

    def __init__(self, wanted: Wanted, hole: Hole) -> None:
        super().__init__(wanted.pivot.height)
        self._wanted = wanted
        self.hole = hole
        self.refused = wanted.refused
        self.snapshot = wanted.pivot[:2]
        self.items = hole.count
        self.reply_bytes = hole.count * ACCOUNT_BYTES
        self.state: FilledState | None = None

    async def fetch(self, attempt: Attempt) -> None:
        """All in one reply."""
        try:
            state = await self._wanted.ask_state(attempt, self.hole)
        except TooLarge:
            raise Misbehaviour(
                Offence.BAD_STATE, f"calls {self.hole.count} accounts too many for a reply"
            ) from None
        if not self.done:
            self.state, self.done = state, True
            self.held_bytes = self.reply_bytes


class RootJob(Job):
    """The root, of which nobody knows yet how many accounts it has."""

    kind = Kind.STATE

    def __init__(self, wanted: Wanted, hole: Hole) -> None:
        super().__init__(wanted.pivot.height)
        self._wanted = wanted
        self._hole = hole
        self.refused = wanted.refused
        self.snapshot = wanted.pivot[:2]
        self.reply_bytes = MAX_STATE_ACCOUNTS * ACCOUNT_BYTES
        self.state: FilledState | None = None
        self.found: list[tuple[Hole, bytes]] = []

    async def fetch(self, attempt: Attempt) -> None:
        """Its node, by which the rest is asked for in pieces: a state that one reply holds may
        take a slow line longer than a request may. A state of one account has no node."""
        state, found = None, []
        try:
            found = await self._wanted.ask_nodes(attempt, [self._hole])
        except Refused:
            try:
                state = await self._wanted.ask_state(attempt, self._hole)
            except TooLarge:
                raise Refused from None
        if not self.done:
            self.state, self.found, self.done = state, found, True


def _rebuild(accounts: bytes, hole: Hole) -> FilledState | None:
    """What the records of a reply make; None if that is not the hole. On a worker thread."""
    try:
        state = FilledState(*merkle.state_records(accounts[_COUNT:], hole.depth, hole.prefix))
    except DecodeError:
        return None
    return state if state.hash == hole.hash and hole.count in (0, state.count) else None


def _falsity(what: str, hole: Hole) -> Misbehaviour:
    place = f"{hole.prefix.hex()[: -(-hole.depth // 4)] or 'the root'}/{hole.depth}"
    return Misbehaviour(Offence.BAD_STATE, f"the state root disproves {what} under {place}")
