"""The addresses that a node knows of, and which of them it may dial when."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from operator import attrgetter
from pathlib import Path
from typing import Any

from ...config import NodeConfig
from ...errors import StorageError
from ...runtime import Runtime
from .. import state_file
from ..addresses import canonical, from_wire, netgroup
from ..limits import ADDRESS_ALIASES, ADDRESS_GIVE_UP, ADDRESS_SAVE_INTERVAL
from ..messages import PeerRecord
from .entry import KnownAddress
from .file import (
    ADDRESS_FILE,
    ADDRESS_FILE_CAP,
    MAX_TRIED,
    SavedAddress,
    decode_book,
    encode_book,
)
from .intake import Intake
from .places import Places
from .selection import Answers, Groups, choose, draw

__all__ = ["AddressBook", "KnownAddress"]

logger = logging.getLogger(__name__)

_JITTER = 0.25  # of a delay, so that nodes that fell together do not dial together
_KEY_SIZE = 32
_SAVED_FIELDS = attrgetter(*SavedAddress._fields)

Wanted = Callable[[KnownAddress], bool]


class AddressBook:
    """Addresses in bounded tables: `new` ones that were told, `tried` ones that were reached.

    Where an address may stand follows from a secret of the book and the groups of the address
    and of who told of it, so that whoever holds the addresses of few groups fills little of it.
    Bootstrap addresses stand outside of the tables and are never given up; others are forgotten
    after ten failed dials in a row, unless nothing at all could be reached meanwhile.
    """

    def __init__(
        self,
        config: NodeConfig,
        runtime: Runtime,
        own_id: bytes,
        directory: Path | state_file.Directory | None = None,
    ) -> None:
        """Kept in a file of `directory`, if one is given."""
        self._config = config
        self._runtime = runtime
        self._intake = Intake(config, runtime, own_id)
        self._file = None if directory is None else state_file.place(directory, ADDRESS_FILE)
        self._loaded = self._file is None
        self._changed = False
        self._places = Places(runtime.entropy(_KEY_SIZE), config, runtime)
        self._answers = Answers(runtime)
        self._bootstrap: dict[tuple[str, int], KnownAddress] = {}
        # Where the names of bootstrap nodes have led, so that what befalls the one counts for both.
        self._aliases: dict[tuple[str, int], tuple[str, int]] = {}
        self._last_good = float("-inf")  # when anybody was reached (loop time)

    def __len__(self) -> int:
        return len(self._bootstrap) + len(self._places.entries)

    def __contains__(self, key: tuple[str, int]) -> bool:
        return key in self._bootstrap or key in self._places.entries

    @property
    def counts(self) -> dict[str, int]:
        """Addresses by kind: bootstrap, new, tried, and of all of them those that were met."""
        tried = len(self._places.tried)
        new = len(self._places.entries) - tried
        return {
            "bootstrap": len(self._bootstrap),
            "new": new,
            "tried": tried,
            "met": len(self._places.met),
        }

    def get(self, host: str, port: int) -> KnownAddress | None:
        """What is known of an address, or of the name that has led there."""
        return next(iter(self._all(host, port)), None)

    def _all(self, host: str, port: int) -> list[KnownAddress]:
        """What is known of an address and of the name that has led there."""
        key = (host, port)
        name = self._aliases.get(key, key)
        found = (self._bootstrap.get(name), self._bootstrap.get(key), self._places.entries.get(key))
        return list(dict.fromkeys(entry for entry in found if entry is not None))

    # --- learning --------------------------------------------------------------------------

    def add_bootstrap(self, host: str, port: int, node_id: bytes | None = None) -> KnownAddress:
        """An address of our own choice (a host name is fine), where the node of this id is
        expected, if one is given."""
        host = canonical(host) or host
        known = self._places.entries.get((host, port))
        if known is not None:
            self._forget(known)
        entry = self._bootstrap.setdefault((host, port), KnownAddress(host, port, bootstrap=True))
        entry.expected_id = node_id
        return entry

    def resolved(self, host: str, port: int, ips: Iterable[str]) -> None:
        """The name of a bootstrap node stands for these addresses: more than one are several
        nodes, all of them worth knowing."""
        entry = self._bootstrap.get((host, port))
        ips = list(ips)
        if entry is None or entry.expected_id is not None or len(ips) < 2:
            return
        now = int(self._runtime.wall_time())
        for ip in ips:
            self.learn(ip, port, bytes(32), now, ip)

    def learn(self, host: str, port: int, node_id: bytes, last_seen: int, source: str) -> bool:
        """A node at `source` told of this address; whether it is new and was kept.

        The id that it told is not believed: it would keep us from dialling a peer's rivals.
        """
        host = canonical(host) or host
        seen = self._intake.age(host, last_seen, source)
        if seen is None or not self._intake.usable(host, port, node_id, source):
            return False
        known = self._bootstrap.get((host, port)) or self._places.entries.get((host, port))
        if known is None:
            entry = KnownAddress(host, port, last_seen=seen)
            kept = self._intake.admits(source) and self._places.add(entry, netgroup(source))
            self._changed |= kept
            return kept
        if seen > known.last_seen:
            known.last_seen, self._changed = seen, True
            if not (known.bootstrap or known.tried or self._places.new.full(known)):
                self._multiply(known, source)
        return False

    def _multiply(self, entry: KnownAddress, source: str) -> None:
        """Another place among the new ones makes an address likelier to be chosen: it is ever
        harder to get."""
        if not self._runtime.random.getrandbits(len(entry.sources)) and self._intake.admits(source):
            self._places.add(entry, netgroup(source))

    def learn_records(self, records: Iterable[PeerRecord], source: str) -> int:
        """What a PEERS message from `source` tells; how many addresses were new."""
        return sum(
            self.learn(from_wire(r.ip), r.port, r.node_id, r.last_seen, source) for r in records
        )

    def met(self, host: str, port: int, node_id: bytes) -> None:
        """A node that dialled us says that it listens there."""
        now = int(self._runtime.wall_time())
        self.learn(host, port, node_id, now, host)
        for entry in self._all(host, port):
            entry.node_id, entry.last_seen = node_id, now
            self._note_met(entry)

    def _note_met(self, entry: KnownAddress) -> None:
        entry.met = self._changed = True
        if canonical(entry.host) is not None:
            self._places.met[entry.key] = entry

    def is_own(self, host: str, port: int) -> None:
        """This address turned out to be ourselves: never dial it again."""
        self._intake.add_own(host, port)
        if self._bootstrap.pop((host, port), None) is not None:
            self._places.met.pop((host, port), None)
        entry = self._places.entries.get((host, port))
        if entry is not None:
            self._forget(entry)

    def seems_own(self, host: str, port: int) -> None:
        """Others say that they see us there: what is hearsay of this address is forgotten. One
        of our own choice, or where a node was met, stays until it proves to be ourselves, or
        peers that agree could take any address from us."""
        entry = self.get(host, port)
        if entry is None or not (entry.bootstrap or entry.met):
            self.is_own(host, port)

    def _forget(self, entry: KnownAddress) -> None:
        self._places.remove(entry)
        self._changed = True

    # --- what came of dialling -------------------------------------------------------------

    def succeeded(self, host: str, port: int, node_id: bytes, ip: str) -> None:
        """A handshake with the node at this address, or name that led to `ip`, has succeeded."""
        now, wall = self._runtime.loop_time(), int(self._runtime.wall_time())
        self._last_good = now
        if (host, port) in self._bootstrap and ip != host:
            self._aliases.pop((ip, port), None)
            self._aliases[ip, port] = (host, port)
            if len(self._aliases) > ADDRESS_ALIASES:
                del self._aliases[next(iter(self._aliases))]
        for entry in dict.fromkeys((*self._all(host, port), *self._all(ip, port))):
            entry.node_id, entry.failures = node_id, 0
            entry.last_seen = entry.last_success = wall
            entry.last_try = now
            entry.next_dial = self._after(self._first_delay(entry))
            if not entry.bootstrap:
                self._places.promote(entry)
            self._note_met(entry)

    def failed(self, host: str, port: int) -> None:
        """Dialling this address has failed, or what was there left at once."""
        now = self._runtime.loop_time()
        entry = self._bootstrap.get((host, port)) or self._places.entries.get((host, port))
        if entry is None:
            return
        if not entry.failures:
            entry.failing_since = now
        entry.failures += 1
        entry.last_try = now
        self._changed = True
        if entry.tried:
            self._places.evict(entry)
        if (
            entry.failures >= ADDRESS_GIVE_UP
            and not entry.bootstrap
            and self._last_good > entry.failing_since  # else it may be our own line that is down
        ):
            self._forget(entry)
            return
        last = self._config.bootstrap_redial_max if entry.bootstrap else self._config.redial_max
        # The exponent is bounded by a day of doubling, or the power itself would overflow.
        delay = self._first_delay(entry) * 2.0 ** min(entry.failures - 1, 32)
        entry.next_dial = self._after(min(delay, last))

    def parted(self, host: str, port: int) -> None:
        """The node at this address is no longer connected: give it a while."""
        for entry in self._all(host, port):
            entry.next_dial = max(entry.next_dial, self._after(self._first_delay(entry)))
            entry.last_seen, self._changed = int(self._runtime.wall_time()), True

    def postpone(self, host: str, port: int, seconds: float) -> None:
        """Do not dial this address for some time."""
        for entry in self._all(host, port):
            entry.next_dial = max(entry.next_dial, self._runtime.loop_time() + seconds)

    def _first_delay(self, entry: KnownAddress) -> float:
        return self._config.bootstrap_redial if entry.bootstrap else self._config.redial_interval

    def _after(self, delay: float) -> float:
        spread = 1.0 + _JITTER * (2.0 * self._runtime.random.random() - 1.0)
        return self._runtime.loop_time() + delay * spread

    # --- whom to dial ----------------------------------------------------------------------

    def due(
        self, now: float, count: int, *, wanted: Wanted, groups: Iterable[str] = ()
    ) -> list[KnownAddress]:
        """Up to `count` addresses to dial now: bootstrap ones first, then tried and new ones
        with equal chance at random, each of another netgroup than `groups` and than the others
        (exempt local ones aside).

        Looks at a bounded number of entries, so that out of a large book it may find fewer than
        there are.
        """
        random = self._runtime.random
        ready = [e for e in self._bootstrap.values() if e.next_dial <= now and wanted(e)]
        random.shuffle(ready)
        found = ready[:count]
        taken = Groups(groups, self._config)
        for entry in found:
            taken.take(entry)
        return found + choose(
            self._places,
            random,
            count - len(found),
            lambda e: e.next_dial <= now and wanted(e),
            taken,
        )

    def next_due(self, wanted: Wanted) -> float | None:
        """When the next address may be dialled (loop time); of a large book, the next of a
        random part of it."""
        now = self._runtime.loop_time()
        soonest = min((e.next_dial for e in self._bootstrap.values() if wanted(e)), default=None)
        for entry in draw(self._places, self._runtime.random):
            if soonest is not None and soonest <= now:
                break
            if (soonest is None or entry.next_dial < soonest) and wanted(entry):
                soonest = entry.next_dial
        return soonest

    def next_feeler(
        self, now: float, *, wanted: Wanted, groups: Iterable[str] = ()
    ) -> KnownAddress | None:
        """An address to be dialled only to see whether a node is there: one whose place among
        the tried ones another waits for, else a new one. `succeeded` or `failed` must follow."""
        to_test = self._places.to_test(wanted)
        if to_test:
            return self._runtime.random.choice(to_test)
        found = choose(
            self._places,
            self._runtime.random,
            1,
            lambda e: not e.tried and e.next_dial <= now and wanted(e),
            Groups(groups, self._config),
        )
        return found[0] if found else None

    # --- telling ---------------------------------------------------------------------------

    def sample(self, count: int, asker: str) -> list[PeerRecord]:
        """Up to `count` random addresses of nodes that we have met, of use to a node at `asker`;
        hearsay is not passed on, and of many only a part, the same for a day."""
        return self._answers.sample(self._places.met, count, asker)

    # --- keeping ---------------------------------------------------------------------------

    async def load(self) -> None:
        """Take in what the file holds, once. A damaged file is set aside."""
        if self._file is None or self._loaded:
            return
        self._loaded = True
        places = await self._runtime.run(self._read, self._file)
        if places is None:
            return
        before, self._places = self._places, places
        for entry in before.entries.values():  # learned before the start
            places.add(entry, netgroup(entry.host))
        for entry in tuple(places.entries.values()):
            if self._intake.is_own(*entry.key) or entry.key in self._bootstrap:
                self._forget(entry)

    def _read(self, file: state_file.StateFile) -> Places | None:
        """On a worker thread: tens of thousands of addresses find their places."""
        found = state_file.load(file, ADDRESS_FILE_CAP, decode_book)
        if found is None:
            return None
        places = Places(found[0], self._config, self._runtime)
        places.restore(found[1])
        return places

    async def save(self) -> None:
        """Write the file, if anything has changed. What goes wrong is logged."""
        if self._file is None or not self._changed:
            return
        self._changed = False
        entries = list(self._places.entries.values())
        if len(self._places.tried) + len(self._bootstrap) <= MAX_TRIED:
            # Those that were reached stay known when they are no longer configured.
            entries += [e for e in self._bootstrap.values() if e.last_success and canonical(e.host)]
        # On the loop only what must be: the file is made of these on a thread.
        saved = list(map(_SAVED_FIELDS, entries))
        try:
            await self._runtime.run(self._write, self._file, self._places.key, saved)
        except StorageError as error:
            self._changed = True
            logger.warning("the address book was not saved: %s", error)

    @staticmethod
    def _write(file: state_file.StateFile, key: bytes, saved: list[tuple[Any, ...]]) -> None:
        file.write(encode_book(key, map(SavedAddress._make, saved)))

    async def keep(self) -> None:
        """Save every quarter of an hour, until cancelled."""
        while self._file is not None:
            await asyncio.sleep(ADDRESS_SAVE_INTERVAL)
            await self.save()
