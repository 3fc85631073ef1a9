"""The addresses that a node knows of, and which of them it may dial when."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from ..config import NodeConfig
from ..runtime import Runtime
from .addresses import canonical, format_address, from_wire, is_local, may_learn, netgroup, to_wire
from .limits import ADDRESS_BOOK_SIZE, ADDRESS_GIVE_UP
from .messages import PeerRecord

__all__ = ["AddressBook", "KnownAddress"]

_JITTER = 0.25  # of a delay, so that nodes that fell together do not dial together


@dataclass(slots=True, eq=False)
class KnownAddress:
    """One place to dial. Times are of the loop's clock except `last_seen` (Unix)."""

    host: str
    port: int
    node_id: bytes | None = None
    last_seen: int = 0
    bootstrap: bool = False
    expected_id: bytes | None = None  # of a bootstrap node: nobody else will do
    met: bool = False  # its node has been connected to us, whoever dialled
    tried: bool = False  # and was found there by dialling
    failures: int = 0  # in a row
    next_dial: float = 0.0

    @property
    def address(self) -> str:
        """``host:port``."""
        return format_address(self.host, self.port)


class AddressBook:
    """A bounded table of addresses.

    Bootstrap addresses are never given up; others are forgotten after ten failed dials in a row,
    or when the book is full and something is to be learned: untried before tried, the longest
    unseen first.
    """

    def __init__(self, config: NodeConfig, runtime: Runtime, own_id: bytes) -> None:
        self._config = config
        self._runtime = runtime
        self._own_id = own_id
        self._entries: dict[tuple[str, int], KnownAddress] = {}
        self._own: set[tuple[str, int]] = set()
        # Where the names of bootstrap nodes have led, so that what befalls the one counts for both.
        self._aliases: dict[tuple[str, int], tuple[str, int]] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, key: tuple[str, int]) -> bool:
        return key in self._entries

    def get(self, host: str, port: int) -> KnownAddress | None:
        """What is known of an address, or of the name that has led there."""
        key = (host, port)
        return self._entries.get(key) or self._entries.get(self._aliases.get(key, key))

    # --- learning --------------------------------------------------------------------------

    def add_bootstrap(self, host: str, port: int, node_id: bytes | None = None) -> KnownAddress:
        """An address of our own choice (a host name is fine), where the node of this id is
        expected, if one is given."""
        entry = self._entries.setdefault((host, port), KnownAddress(host, port))
        entry.bootstrap, entry.expected_id = True, node_id
        return entry

    def learn(self, host: str, port: int, node_id: bytes, last_seen: int, source: str) -> bool:
        """A node at `source` told of this address; whether it is new and was kept."""
        host = canonical(host) or host
        key = (host, port)
        if port == 0 or node_id == self._own_id or key in self._own:
            return False
        if not may_learn(host, source):
            return False
        # Claims about the future would keep an address in the book forever.
        last_seen = min(last_seen, int(self._runtime.wall_time()))
        known = self._entries.get(key)
        if known is not None:
            known.last_seen = max(known.last_seen, last_seen)
            return False
        if len(self._entries) >= ADDRESS_BOOK_SIZE and not self._make_room():
            return False
        self._entries[key] = KnownAddress(host, port, node_id, last_seen)
        return True

    def learn_records(self, records: Iterable[PeerRecord], source: str) -> int:
        """What a PEERS message from `source` tells; how many addresses were new."""
        return sum(
            self.learn(from_wire(r.ip), r.port, r.node_id, r.last_seen, source) for r in records
        )

    def met(self, host: str, port: int, node_id: bytes) -> None:
        """A node that dialled us says that it listens there."""
        now = int(self._runtime.wall_time())
        self.learn(host, port, node_id, now, host)
        entry = self._entries.get((host, port))
        if entry is not None:
            entry.met, entry.node_id, entry.last_seen = True, node_id, now

    def _make_room(self) -> bool:
        removable = [e for e in self._entries.values() if not e.bootstrap]
        if not removable:
            return False
        victim = min(removable, key=lambda e: (e.tried, e.met, e.last_seen))
        del self._entries[victim.host, victim.port]
        return True

    # --- dialling --------------------------------------------------------------------------

    def is_own(self, host: str, port: int) -> None:
        """This address turned out to be ourselves: never dial it again."""
        self._own.add((host, port))
        self._entries.pop((host, port), None)

    def succeeded(self, host: str, port: int, node_id: bytes, ip: str) -> None:
        """A handshake with the node at this address, or name that led to `ip`, has succeeded."""
        entry = self._entries.get((host, port))
        if entry is not None:
            if entry.bootstrap and ip != host:
                self._aliases[ip, port] = (host, port)
            entry.node_id, entry.failures = node_id, 0
            entry.met = entry.tried = True
            entry.last_seen = int(self._runtime.wall_time())
            entry.next_dial = self._after(self._first_delay(entry))

    def failed(self, host: str, port: int) -> None:
        """Dialling this address has failed, or what was there left at once."""
        entry = self._entries.get((host, port))
        if entry is None:
            return
        entry.failures += 1
        if entry.failures >= ADDRESS_GIVE_UP and not entry.bootstrap:
            del self._entries[host, port]
            return
        last = self._config.bootstrap_redial_max if entry.bootstrap else self._config.redial_max
        # The exponent is bounded by a day of doubling, or the power itself would overflow.
        delay = self._first_delay(entry) * 2.0 ** min(entry.failures - 1, 32)
        entry.next_dial = self._after(min(delay, last))

    def parted(self, host: str, port: int) -> None:
        """The node at this address is no longer connected: give it a while."""
        entry = self.get(host, port)
        if entry is not None:
            entry.next_dial = max(entry.next_dial, self._after(self._first_delay(entry)))

    def postpone(self, host: str, port: int, seconds: float) -> None:
        """Do not dial this address for some time."""
        entry = self.get(host, port)
        if entry is not None:
            entry.next_dial = max(entry.next_dial, self._runtime.loop_time() + seconds)

    def _first_delay(self, entry: KnownAddress) -> float:
        return self._config.bootstrap_redial if entry.bootstrap else self._config.redial_interval

    def _after(self, delay: float) -> float:
        spread = 1.0 + _JITTER * (2.0 * self._runtime.random.random() - 1.0)
        return self._runtime.loop_time() + delay * spread

    def due(
        self,
        now: float,
        count: int,
        *,
        wanted: Callable[[KnownAddress], bool],
        groups: Iterable[str] = (),
    ) -> list[KnownAddress]:
        """Up to `count` addresses to dial now: bootstrap ones first, then tried and untried ones
        in random order, each of another netgroup than `groups` and than the others (this machine
        and private networks are exempt)."""
        found: list[KnownAddress] = []
        taken = set(groups)
        ready = [e for e in self._entries.values() if e.next_dial <= now and wanted(e)]
        self._runtime.random.shuffle(ready)
        ready.sort(key=lambda e: not e.bootstrap)
        for entry in ready:
            if len(found) >= count:
                break
            group = netgroup(entry.host)
            if group in taken and not entry.bootstrap and not is_local(entry.host):
                continue
            taken.add(group)
            found.append(entry)
        return found

    def next_due(self, wanted: Callable[[KnownAddress], bool]) -> float | None:
        """When the next address may be dialled (loop time)."""
        return min((e.next_dial for e in self._entries.values() if wanted(e)), default=None)

    # --- telling ---------------------------------------------------------------------------

    def sample(self, count: int, asker: str) -> list[PeerRecord]:
        """Up to `count` random addresses of nodes that we have met, of use to a node at `asker`;
        hearsay is not passed on."""
        usable = [
            entry
            for entry in self._entries.values()
            if entry.met and canonical(entry.host) is not None and may_learn(entry.host, asker)
        ]
        picked = self._runtime.random.sample(usable, min(count, len(usable)))
        return [
            PeerRecord(
                node_id=e.node_id or bytes(32),
                ip=to_wire(e.host),
                port=e.port,
                last_seen=e.last_seen,
            )
            for e in picked
        ]
