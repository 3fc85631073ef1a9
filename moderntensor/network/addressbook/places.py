"""Who stands where in the two tables, and who must be tested before another takes its place."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from ...config import NodeConfig
from ...runtime import Runtime
from ..addresses import is_exempt, netgroup
from ..limits import ADDRESS_COLLISIONS, ADDRESS_REPLACEMENT, ADDRESS_TEST_WINDOW
from .entry import KnownAddress
from .file import SavedAddress
from .tables import NewTable, TriedTable

__all__ = ["Places", "group_of"]

Wanted = Callable[[KnownAddress], bool]


def group_of(entry: KnownAddress, config: NodeConfig) -> str:
    """What counts as one party: the netgroup, or a single address if it is exempt."""
    return entry.address if is_exempt(entry.host, config) else netgroup(entry.host)


class Places:
    """The entries of a book and the tables in which they stand.

    An entry is in one place among the tried ones, or in up to a few among the new ones, or it is
    forgotten.
    """

    def __init__(self, key: bytes, config: NodeConfig, runtime: Runtime) -> None:
        """`key` is the secret of the book, 32 bytes."""
        self.key = key
        self.entries: dict[tuple[str, int], KnownAddress] = {}
        # Whose node has been connected to us; also addresses that stand outside of the tables.
        self.met: dict[tuple[str, int], KnownAddress] = {}
        self.new = NewTable(key, lambda entry: group_of(entry, config))
        self.tried = TriedTable(key, lambda entry: group_of(entry, config))
        self._runtime = runtime
        # Who was reached while another holds its place, and since when that one is to be tested.
        self._disputes: dict[KnownAddress, float] = {}

    # --- coming and going ------------------------------------------------------------------

    def add(self, entry: KnownAddress, source: str) -> bool:
        """Give an entry that is not tried a place for `source`, the group of who told of it;
        whether it got one."""
        wall, now = self._runtime.wall_time(), self._runtime.loop_time()
        return self._add(entry, source, lambda holder: holder.is_terrible(wall, now))

    def _add(self, entry: KnownAddress, source: str, terrible: Wanted) -> bool:
        placed, lost = self.new.add(entry, source, terrible)
        if lost is not None:
            self.remove(lost)
        if placed:
            self.entries[entry.key] = entry
        return placed

    def remove(self, entry: KnownAddress) -> None:
        """Forget an entry."""
        if self.entries.get(entry.key) is entry:
            del self.entries[entry.key]
            self.met.pop(entry.key, None)
        self._disputes.pop(entry, None)
        if entry.tried:
            self.tried.remove(entry)
            entry.tried = False
        else:
            self.new.remove(entry)

    def restore(self, saved: Iterable[SavedAddress]) -> None:
        """Enter what a file holds; who finds its place taken is left out."""
        for address in saved:
            entry = KnownAddress(*address[:5], met=address.met, failures=address.failures)
            if address.sources:
                for source in address.sources:
                    self._add(entry, source, lambda _: False)
            elif self.tried.get(place := self.tried.place(entry)) is None:
                entry.tried = True
                self.tried.put(place, entry)
                self.entries[entry.key] = entry
            if entry.met and entry.key in self.entries:
                self.met[entry.key] = entry

    # --- testing before evicting -----------------------------------------------------------

    def promote(self, entry: KnownAddress) -> None:
        """An entry was reached: it belongs among the tried ones. Where another stands, that one
        is to be tested first."""
        if entry.tried:
            return
        place = self.tried.place(entry)
        if self.tried.get(place) is None:
            self._disputes.pop(entry, None)
            self.new.remove(entry)
            self.tried.put(place, entry)
            entry.tried = True
        elif len(self._disputes) < ADDRESS_COLLISIONS:
            self._disputes.setdefault(entry, self._runtime.loop_time())

    def evict(self, incumbent: KnownAddress) -> None:
        """A tried entry failed its test: who waits for its place gets it, if anyone does. The
        entry goes back among the new ones, in place of whoever is there."""
        for newcomer, holder in self.disputes():
            if holder is incumbent:
                self.tried.remove(incumbent)
                incumbent.tried = False
                self.promote(newcomer)
                self._add(incumbent, netgroup(incumbent.host), lambda _: True)
                return

    def disputes(self) -> Iterator[tuple[KnownAddress, KnownAddress]]:
        """Who was reached lately, and who holds its place; those that are over are dropped."""
        for newcomer in tuple(self._disputes):
            if newcomer not in self._disputes:
                continue  # meanwhile forgotten
            holder = self.tried.get(self.tried.place(newcomer))
            if holder is None:
                self.promote(newcomer)
            elif holder is newcomer:
                del self._disputes[newcomer]
            else:
                yield newcomer, holder

    def to_test(self, wanted: Wanted) -> list[KnownAddress]:
        """Tried entries that another waits for. Who was reached a short while ago, or is not
        `wanted` (it is connected), keeps its place; who could not be tested in time loses it."""
        now, wall = self._runtime.loop_time(), self._runtime.wall_time()
        found = []
        for newcomer, holder in self.disputes():
            if abs(wall - holder.last_success) < ADDRESS_REPLACEMENT or not wanted(holder):
                del self._disputes[newcomer]
            elif now - self._disputes[newcomer] > ADDRESS_TEST_WINDOW:
                self.evict(holder)
            elif holder.next_dial <= now:
                found.append(holder)
        return found
