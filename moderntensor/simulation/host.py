"""A simulated machine and the node on it: started, stopped, killed, started again."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Sequence
from contextvars import Context, copy_context
from typing import TYPE_CHECKING, Any, Final, TypeVar

from ..blockchain.chain_types import HeadChanged
from ..blockchain.crypto import KeyPair
from ..config import NodeConfig
from ..errors import LivelockError, SimulationError
from ..network.identity import NodeIdentity
from ..network.peer import Peer
from ..node import FullNode
from .disk import Mount, SimDisk
from .lines import Line, Link
from .network import Process, current_process
from .runtime import Clock, SimRuntime

if TYPE_CHECKING:
    from .world import World

__all__ = ["PORT", "Host", "of_the_living"]

T = TypeVar("T")

PORT: Final = 30303
"""That every simulated node listens on."""
_ROUNDS: Final = 1000  # in which the tasks of a killed process have to end


class Host:
    """One machine: an address, a disk, a clock, and at most one node at a time.

    `World.add_host` makes them.
    """

    def __init__(
        self,
        world: World,
        name: str,
        ip: str,
        *,
        validator: KeyPair | None = None,
        bootstrap: Sequence[Host | str] = (),
        honest: bool = True,
        settings: NodeConfig,
        factory: Callable[[Host], FullNode] | None = None,
        line: Line | None = None,
        link: Link | None = None,
    ) -> None:
        self.world: Final = world
        self.name: Final = name
        self.ip: Final = ip
        self.port: Final = PORT
        self.validator: Final = validator
        self.bootstrap: Sequence[Host | str] = tuple(bootstrap)
        """Who is told to the next node as its bootstrap nodes: hosts, or ``host:port``."""
        self.honest = honest
        self.settings = settings
        self.disk: Final = SimDisk()
        self.clock: Final = Clock(world.loop, world.epoch)
        self.node: FullNode | None = None
        self.lives = 0
        """How many nodes have been made here."""
        self._factory = factory
        self._process: Process | None = None
        self._context: Context | None = None
        self._runtime: SimRuntime | None = None
        self._mount: Mount | None = None
        self._identity: NodeIdentity | None = None
        self._line = line
        self._net = world.network.add_host(ip, line=line, link=link)

    def __repr__(self) -> str:
        return f"<Host {self.name} {self.ip}>"

    # --- what is asked of it -----------------------------------------------------------------

    @property
    def address(self) -> str:
        """``ip:port``."""
        return f"{self.ip}:{self.port}"

    @property
    def up(self) -> bool:
        """Whether a node is there, from its making to its stop or the crash."""
        return self.node is not None

    @property
    def identity(self) -> NodeIdentity:
        """The key on its disk, which lasts."""
        if self._identity is None:
            self._identity = NodeIdentity(self.world.seeded_bytes("identity", self.name))
        return self._identity

    @property
    def node_id(self) -> bytes:
        """The public half of `identity`, 32 bytes."""
        return self.identity.node_id

    @property
    def bytes_received(self) -> int:
        """Bytes of payload that have arrived so far, over all its lives."""
        return self._net.bytes_in

    @property
    def bytes_sent(self) -> int:
        """As `bytes_received`, what was sent."""
        return self._net.bytes_out

    @property
    def line(self) -> Line | None:
        """What bounds its bytes per second, None for nothing; may be set while it runs."""
        return self._line

    @line.setter
    def line(self, line: Line | None) -> None:
        self._line = line
        self.world.network.set_line(self.ip, line)

    @property
    def skew(self) -> float:
        """Seconds by which its wall clock is ahead now, behind if negative; may be set while it
        runs."""
        return self.clock.skew

    @skew.setter
    def skew(self, seconds: float) -> None:
        self.clock.skew = seconds

    @property
    def drift(self) -> float:
        """Seconds that its wall clock gains in each second; may be set while it runs."""
        return self.clock.drift

    @drift.setter
    def drift(self, rate: float) -> None:
        self.clock.drift = rate

    def wall_time(self) -> float:
        """Unix seconds by its clock."""
        return self.clock.time()

    # --- for who makes a node ------------------------------------------------------------------

    @property
    def runtime(self) -> SimRuntime:
        """Of the life that has begun last. SimulationError before the first."""
        if self._runtime is None:
            raise SimulationError(f"{self.name} has never been started")
        return self._runtime

    @property
    def mount(self) -> Mount:
        """`disk` as the life that has begun last sees it. SimulationError before the first."""
        if self._mount is None:
            raise SimulationError(f"{self.name} has never been started")
        return self._mount

    def make_node(self, **changes: Any) -> FullNode:
        """The node that this host runs where it was given no other `factory`; `changes` are
        arguments of `FullNode`."""
        config = self.world.config
        options: dict[str, Any] = {
            "bootstrap_nodes": [
                other.address if isinstance(other, Host) else other for other in self.bootstrap
            ],
            "listen_host": self.ip,
            "listen_port": self.port,
            "settings": self.settings,
            "identity": self.identity,
            "producer_key": self.validator,
            "runtime": self.runtime,
            "disk": self.mount,
        }
        return FullNode(None, config, **{**options, **changes})

    async def within(self, work: Coroutine[Any, Any, T], name: str = "work") -> T:
        """Run `work` as code of the host's process, which dies with it. SimulationError if none
        runs."""
        if self._context is None:
            work.close()
            raise SimulationError(f"{self.name} does not run")
        loop = asyncio.get_running_loop()
        return await loop.create_task(work, name=f"{self.name} {name}", context=self._context)

    # --- life --------------------------------------------------------------------------------

    async def start(self) -> None:
        """Make a node and start it. SimulationError if one runs."""
        if self.node is not None:
            raise SimulationError(f"{self.name} runs already")
        world = self.world
        self.lives += 1
        self._process = world.network.start_process(self.ip)
        self._context = copy_context()
        self._context.run(current_process.set, self._process)
        self._mount = self.disk.mount()
        self._runtime = world.make_runtime(self, self._context)
        world.trace.record("start", self.name)
        self.node = node = self._context.run(self._factory or Host.make_node, self)
        self._watch(node)
        for told in tuple(world.on_node):
            told(self)
        process = self._process
        try:
            await self.within(node.start(), "start")
        except asyncio.CancelledError:
            if process.alive:
                raise
            # It was killed while it started; who asked for the start goes on.
        except Exception:
            if process.alive:
                await self._end(silent=False)
            raise

    async def restart(self) -> None:
        """`start` after a stop or a crash: what is on the disk is there, and nothing else."""
        await self.start()

    async def stop(self) -> None:
        """Stop the node as its operator would. Raises what ended one of its tasks before, or
        SimulationError if it leaves tasks or timers behind. Nothing happens where none runs."""
        node, process = self.node, self._process
        if node is None or process is None:
            return
        try:
            await self.within(node.stop(), "stop")
        finally:
            if self._process is process and self.node is node:
                left = [repr(task) for task in self._tasks()]
                self.world.trace.record("stop", self.name)
                left += await self._end(silent=False)
                if left:
                    raise SimulationError(f"{self.name} has stopped and left {', '.join(left)}")

    async def crash(self, silent: bool = False) -> None:
        """Kill the process, or take its power away (`silent`): what was not committed is lost, and
        no clean-up code has an effect. Nothing happens where none runs."""
        if self.node is None:
            return
        self.world.trace.record("crash", f"{self.name} {'silent' if silent else 'killed'}")
        await self._end(silent=silent)

    async def _end(self, *, silent: bool) -> list[str]:
        """The process is no more: first it is cut off, then what is left of it is cleared away,
        all at this very moment; the timers that were left."""
        node, process, runtime, mount = self.node, self._process, self._runtime, self._mount
        assert process is not None and runtime is not None and mount is not None  # noqa: S101
        self.node = self._process = self._context = None
        runtime.end()
        mount.cut()
        self.world.network.kill(process, silent=silent)
        if isinstance(node, FullNode):
            node.p2p.on_peer_connected.clear()
            node.p2p.on_peer_disconnected.clear()
        for _ in range(_ROUNDS):
            tasks = self._tasks(process)
            if not tasks:
                break
            for task in tasks:
                task.cancel()
            await asyncio.sleep(0)
            for task in tasks:
                if task.done() and not task.cancelled():
                    task.exception()  # nobody is left to be told
        else:
            raise LivelockError(f"{self.name}: tasks survive a crash: {tasks}")
        return self.world.loop.drop(lambda context: context.get(current_process) is process)

    def _tasks(self, process: Process | None = None) -> list[asyncio.Task[Any]]:
        wanted = process or self._process
        current = asyncio.current_task()
        return [
            task
            for task in self.world.loop.unfinished()
            if task is not current and task.context.get(current_process) is wanted
        ]

    # --- for the trace -----------------------------------------------------------------------

    def _watch(self, node: FullNode) -> None:
        if not isinstance(node, FullNode):
            return
        trace, name, life = self.world.trace, self.name, self._process

        def head(event: HeadChanged) -> None:
            if event.reverted:
                trace.record("reorganise", f"{name} {len(event.reverted)}")
            trace.record("head", f"{name} {event.head.height} {event.head.hash.hex()[:16]}")

        def parted(peer: Peer) -> None:
            if life is not None and life.alive and peer.offence is not None:
                trace.record("offence", f"{name} {peer.host_address} {peer.offence.value}")

        node.chain.subscribe(head)
        node.p2p.on_peer_disconnected.append(parted)


def of_the_living(_: logging.LogRecord) -> bool:
    """A filter for handlers of logs: False for what code of a process says that was killed."""
    process = current_process.get(None)
    return process is None or process.alive
