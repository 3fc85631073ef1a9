"""Whom to dial, and whom to tell of."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import TYPE_CHECKING, TypeVar

from ...config import NodeConfig
from ...runtime import Runtime
from ..addresses import Scope, is_exempt, may_learn, netgroup, scope, to_wire
from ..limits import ADDRESS_ANSWER_TIME, ADDRESS_DRAWS, ADDRESS_SHARE, ADDRESS_SHARE_MIN
from ..messages import PeerRecord
from ..protocol import MAX_PEERS
from .entry import KnownAddress
from .places import Places

if TYPE_CHECKING:
    from random import Random

__all__ = ["Answers", "Groups", "choose", "draw"]

T = TypeVar("T")

_SPARE = 4
_PATIENCE = 1.2  # by which each refused draw raises the chance of the next: Bitcoin Core


class Groups:
    """The netgroups in which there is somebody already, for one outbound peer per group."""

    def __init__(self, taken: Iterable[str], config: NodeConfig) -> None:
        self._taken = set(taken)
        self._config = config

    def take(self, entry: KnownAddress) -> bool:
        """Whether another may be had where `entry` is; if so it is. Exempt addresses always."""
        if is_exempt(entry.host, self._config):
            return True
        group = netgroup(entry.host)
        if group in self._taken:
            return False
        self._taken.add(group)
        return True


def draw(places: Places, random: Random) -> Iterator[KnownAddress]:
    """Entries in random order: from the tried and the new ones with equal chance while there are
    both, in each first a bucket and then one of it. Nobody twice, not more than a bounded number.
    """
    tables = [places.tried.draw(random), places.new.draw(random)]
    seen: set[KnownAddress] = set()
    for _ in range(ADDRESS_DRAWS):
        while tables:
            table = tables[random.getrandbits(1)] if len(tables) == 2 else tables[0]
            entry = next(table, None)
            if entry is not None:
                break
            tables.remove(table)
        else:
            return
        if entry not in seen:  # it may have several places among the new ones
            seen.add(entry)
            yield entry


def choose(
    places: Places,
    random: Random,
    count: int,
    fits: Callable[[KnownAddress], bool],
    groups: Groups,
) -> list[KnownAddress]:
    """Up to `count` entries for which `fits` holds, each of another group; who failed before is
    chosen less likely, but rather than nobody."""
    found: list[KnownAddress] = []
    passed_over: list[KnownAddress] = []
    if count <= 0:
        return found
    patience = 1.0
    for entry in filter(fits, draw(places, random)):
        chance = entry.chance * patience
        if chance < 1.0 and random.random() >= chance:
            passed_over.append(entry)
            patience *= _PATIENCE
        elif groups.take(entry):
            found.append(entry)
            if len(found) == count:
                return found
    return found + list(islice(filter(groups.take, passed_over), count - len(found)))


class Answers:
    """What other nodes are told: addresses that we met, never more than a part of many, and the
    same for a day, so that asking again and again tells nothing more."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        # For askers of each scope: until when, how many there were, and what they are told.
        self._told: dict[Scope, tuple[float, int, list[PeerRecord]]] = {}

    def sample(
        self, met: dict[tuple[str, int], KnownAddress], count: int, asker: str
    ) -> list[PeerRecord]:
        """Up to `count` of `met` at random, of use to a node at `asker`."""
        now, kind = self._runtime.loop_time(), scope(asker)
        until, number, told = self._told.get(kind, (now, 0, []))
        # A young book doubles soon: what it told first is not all that it ever tells.
        if now >= until or len(met) >= 2 * number:
            share = min(max(ADDRESS_SHARE_MIN, int(ADDRESS_SHARE * len(met))), MAX_PEERS)
            # A few times as many as are needed, should some be of no use to the asker.
            some = self._pick(list(met.values()), _SPARE * share)
            told = [_record(e) for e in some if may_learn(e.host, asker)][:share]
            if len(met) > ADDRESS_SHARE_MIN:
                self._told[kind] = (now + ADDRESS_ANSWER_TIME, len(met), told)
        return self._pick(told, count)

    def _pick(self, items: list[T], count: int) -> list[T]:
        return self._runtime.random.sample(items, min(count, len(items)))


def _record(entry: KnownAddress) -> PeerRecord:
    return PeerRecord(
        node_id=entry.node_id or bytes(32),
        ip=to_wire(entry.host),
        port=entry.port,
        last_seen=entry.last_seen,
    )
