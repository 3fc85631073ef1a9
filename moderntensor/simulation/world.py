"""A network in a box: hosts with real nodes, in virtual time, all of it determined by a seed."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextvars import Context
from hashlib import sha256
from pathlib import Path
from random import Random
from typing import Any, Final, TypeVar

from ..blockchain.crypto import KeyPair
from ..blockchain.genesis import ChainConfig
from ..config import NodeConfig
from ..errors import ConfigError, SimulationError
from ..node import FullNode
from .host import Host
from .interrupts import between_callbacks
from .lines import Line, Link
from .loop import VirtualLoop
from .network import SimNetwork
from .runtime import Delays, SimRuntime, seeded
from .signatures import SharedSignatures
from .trace import Trace

__all__ = ["EPOCH", "World"]

T = TypeVar("T")

EPOCH: Final = 1_800_000_000.0
"""Unix time at which every simulation begins (January 2027)."""
# While a world runs the collector looks at young objects so seldom (its default: every 700): a
# tenth of the time is saved.
_COLLECT: Final = (50_000, 20, 50)
_FIRST_NET: Final = 11  # the first octet: from here on 89 of them are public throughout
_NETS: Final = 89


class World:
    """Hosts, the network between them, and the time that they share.

        async def main(world: World) -> None:
            hosts = [world.add_host(validator=key) for key in keys]
            await world.start(hosts)
            await asyncio.sleep(60)  # simulated seconds

        World(seed=7, config=config).run(main)

    The same seed and program give the same `trace`, byte for byte, in every process.
    """

    def __init__(
        self,
        seed: int,
        *,
        config: ChainConfig | None = None,
        settings: NodeConfig | None = None,
        link: Link = Link(0.05, jitter=0.01),  # noqa: B008 - it is immutable
        delays: Delays = Delays(),  # noqa: B008
        record: bool | Path | None = False,
    ) -> None:
        """`config` is the chain of all nodes, and `settings` what they have in common; both, like
        `link`, may still be assigned before the first host is added. `link` lies between any two
        hosts of which nothing else is said, `delays` is what work on worker threads takes.
        `record`: keep the text of the trace in memory, or write it to a file; its hash is always
        there.
        """
        self.seed: Final = seed
        self.epoch: Final = EPOCH
        self.loop: Final = VirtualLoop()
        self.trace: Final = Trace(self.loop.time, record or False)
        self.random: Final = seeded(seed, "scenario")
        """For what a scenario draws; nodes and network have others."""
        self.network: Final = SimNetwork(self.loop, seeded(seed, "network"), self.trace)
        self.settings: NodeConfig = settings or NodeConfig()
        self.on_node: list[Callable[[Host], None]] = []
        """Called with a host whenever it has made a node, before that starts."""
        self.signatures: Final = SharedSignatures()
        self._config = config
        self._link = self.network.link = link
        self._delays = delays
        self._lots = seeded(seed, "delays")
        self._hosts: dict[str, Host] = {}
        self._by_ip: dict[str, Host] = {}

    # --- what there is ---------------------------------------------------------------------

    @property
    def now(self) -> float:
        """Simulated seconds since the beginning."""
        return self.loop.time()

    def wall_time(self) -> float:
        """The right Unix time; a host's clock may say another."""
        return self.epoch + self.loop.time()

    @property
    def config(self) -> ChainConfig:
        """The chain of all nodes. ConfigError while there is none."""
        if self._config is None:
            raise ConfigError("the world has no chain yet: assign World.config")
        return self._config

    @config.setter
    def config(self, config: ChainConfig) -> None:
        self._config = config

    @property
    def link(self) -> Link:
        """Between any two hosts of which nothing else is said."""
        return self._link

    @link.setter
    def link(self, link: Link) -> None:
        self._link = self.network.link = link

    @property
    def hosts(self) -> list[Host]:
        """All hosts, in the order in which they were added; a copy."""
        return list(self._hosts.values())

    @property
    def honest(self) -> list[Host]:
        """Those that are honest."""
        return [host for host in self._hosts.values() if host.honest]

    def host(self, name: str) -> Host:
        """The host of this name. SimulationError if there is none."""
        try:
            return self._hosts[name]
        except KeyError:
            raise SimulationError(f"there is no host {name}") from None

    def host_at(self, ip: str) -> Host | None:
        """The host at this address, if any."""
        return self._by_ip.get(ip)

    # --- making it -------------------------------------------------------------------------

    def add_host(
        self,
        name: str | None = None,
        *,
        ip: str | None = None,
        validator: KeyPair | None = None,
        bootstrap: Iterable[Host | str] = (),
        line: Line | None = None,
        link: Link | None = None,
        honest: bool = True,
        settings: NodeConfig | Mapping[str, Any] | None = None,
        factory: Callable[[Host], FullNode] | None = None,
    ) -> Host:
        """A machine that is switched on and runs nothing yet.

        `name` is ``n0``, ``n1``… by default, `ip` a public address in a /16 of its own. Its node
        makes blocks with the key `validator`, begins with `bootstrap`, and has the world's
        `settings`, in which a mapping changes some. `line` bounds what it sends and receives,
        `link` lies between it and an average place. `factory` makes the node in place of
        `Host.make_node`. SimulationError for a name, ValueError for an address that is taken.
        """
        number = len(self._hosts)
        name = name or f"n{number}"
        if name in self._hosts:
            raise SimulationError(f"there is a host {name} already")
        if not isinstance(settings, NodeConfig):
            settings = self.settings.replace(**(settings or {}))
        host = Host(
            self,
            name,
            ip or _address(number),
            validator=validator,
            bootstrap=tuple(bootstrap),
            honest=honest,
            settings=settings,
            factory=factory,
            line=line,
            link=link,
        )
        self._hosts[name] = self._by_ip[host.ip] = host
        return host

    async def start(self, hosts: Sequence[Host] | None = None, *, over: float = 0.0) -> None:
        """Start these hosts (default: all) one after the other, evenly over so many seconds."""
        chosen = self.hosts if hosts is None else list(hosts)
        began = self.now
        for number, host in enumerate(chosen):
            at = began + over * number / max(len(chosen), 1)
            if at > self.now:
                await asyncio.sleep(at - self.now)
            await host.start()

    def seeded_bytes(self, *names: object) -> bytes:
        """32 bytes that the seed and these names determine: keys of hosts."""
        return sha256("/".join(map(str, (self.seed, *names))).encode()).digest()

    def seeded_random(self, *names: object) -> Random:
        """Chance of one's own that the seed and these names determine."""
        return seeded(self.seed, *names)

    def make_runtime(self, host: Host, context: Context) -> SimRuntime:
        """For the life of `host` that begins. For `Host`."""
        return SimRuntime(
            self.loop,
            host.clock,
            f"{self.seed}/{host.name}/{host.lives}",
            delays=self._delays,
            lots=self._lots,
            context=context,
            signatures=self.signatures,
        )

    # --- running it ------------------------------------------------------------------------

    def run(self, main: Callable[[World], Awaitable[T]]) -> T:
        """Await ``main(world)`` in virtual time, then stop all nodes; what `main` gave.

        Once. Raises what `main` raises; else SimulationError where a node cannot be stopped or
        leaves something running, where anything failed that nobody was told of, or where the
        trace's file could not be written.
        """
        if self.loop.is_closed():
            raise SimulationError("a world runs once: make a new one")
        before = gc.get_threshold()
        gc.set_threshold(*_COLLECT)
        try:
            with between_callbacks(self.loop):
                result = self.loop.run_until_complete(self._whole(main))
            left = self.loop.wind_up()
            faults = [f"still running at the end: {task}" for task in left]
            faults += self.loop.failures
            if self.network.open_sockets:
                faults.append(f"{self.network.open_sockets} sockets are open at the end")
            if faults:
                raise SimulationError("; ".join(faults))
        except BaseException:
            if not self.loop.is_running():
                self.loop.wind_up()
            raise
        finally:
            gc.set_threshold(*before)
            self.close()
        self.trace.check()
        return result

    def close(self) -> None:
        """Let go of a world that is not to be run, or was. Idempotent."""
        self.loop.close()
        self.trace.close()

    async def _whole(self, main: Callable[[World], Awaitable[T]]) -> T:
        try:
            return await main(self)
        finally:
            # All at once: those who are left dial those who have gone, for as long as any are.
            ends = await asyncio.gather(
                *(host.stop() for host in self.hosts), return_exceptions=True
            )
            failures: list[Exception] = []
            for host, error in zip(self.hosts, ends, strict=True):
                if isinstance(error, Exception):
                    error.add_note(f"while {host.name} was stopped")
                    failures.append(error)
            if failures:
                raise ExceptionGroup("nodes that could not be stopped", failures)


def _address(number: int) -> str:
    """Public, and in a netgroup (/16) of its own for 22,784 hosts."""
    high, low = divmod(number, _NETS)
    return f"{_FIRST_NET + low}.{high % 256}.{high // 256 % 256}.1"
