"""A node's life: listening, what runs while it is up, and that nothing of it is left behind."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from typing import Any, Protocol

from ..config import NodeConfig
from ..errors import ConnectError, NetworkError
from ..runtime import Runtime
from .addresses import format_address
from .gate import Gate
from .messages import DisconnectCode
from .peers import PeerTable
from .resolver import resolve
from .tasks import TaskSet

__all__ = ["Life", "Work"]

logger = logging.getLogger(__name__)

_SOCKET_TURNS = 4  # of the loop, from accepting or aborting a socket to the end of it

# What runs while the node is up: its name, and what makes the coroutine.
Work = tuple[str, Callable[[], Coroutine[Any, Any, None]]]


class LifeHost(Protocol):
    """What is brought up and down."""

    config: NodeConfig
    runtime: Runtime
    table: PeerTable
    gate: Gate
    tasks: TaskSet


class Life:
    """Starts and stops a node, one at a time and as often as one likes."""

    def __init__(self, node: LifeHost, *, owns_runtime: bool) -> None:
        """`owns_runtime`: the node made it, and ends its threads when it stops."""
        self._node = node
        self._owns_runtime = owns_runtime
        self._listener: asyncio.Server | None = None
        self.port = 0  # that is listened on
        self.running = False
        self._to_stop = False  # until everything that `start` began has ended
        self._lock = asyncio.Lock()
        self._failure: BaseException | None = None

    async def start(
        self,
        prepare: Callable[[], Coroutine[Any, Any, None]],
        works: Sequence[Work],
    ) -> None:
        """Await `prepare`, listen, run `works` as tasks. Raises `NetworkError` if the port cannot
        be listened on."""
        async with self._lock:
            if self.running:
                return
            node = self._node
            node.tasks = TaskSet(self.task_failed)
            self._failure = None
            await prepare()
            if node.config.listen:
                await self._listen()
            self.running = self._to_stop = True
            for name, work in works:
                node.tasks.start(work(), name)

    async def stop(self, finish: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Tell the peers, close everything, wait until nothing of it runs, await `finish`.

        Raises what ended one of the tasks before, if anything did.
        """
        async with self._lock:
            if self._to_stop:
                await self._stop(finish)
            if self._owns_runtime:
                self._node.runtime.close()
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise failure

    async def _stop(self, finish: Callable[[], Coroutine[Any, Any, None]]) -> None:
        node = self._node
        self.running = False
        if self._listener is not None:
            _accept_no_more(self._listener)
            await _turns()  # sockets that were accepted just now reach the gate
            self._listener.close()
        node.gate.close()
        for peer in node.table:
            peer.disconnect(DisconnectCode.SHUTTING_DOWN)
        await node.tasks.close()
        await node.gate.wait_closed()
        await _turns()  # those of cancelled dials are closed
        if self._listener is not None:
            await self._listener.wait_closed()
            self._listener = None
        self.port = 0
        await finish()
        self._to_stop = False

    async def _listen(self) -> None:
        node = self._node
        host, port = node.config.listen_host, node.config.listen_port
        loop = asyncio.get_running_loop()
        try:
            hosts = await resolve(node.runtime, host, port)
            # In two steps: cancelled between them, the socket is ours to close.
            if hosts == ["::"] and socket.has_dualstack_ipv6():
                # Every address of either family; asyncio would leave IPv4 out.
                both = socket.create_server(
                    ("::", port), family=socket.AF_INET6, dualstack_ipv6=True
                )
                self._listener = await loop.create_server(
                    node.gate.accept, sock=both, start_serving=False
                )
            else:
                self._listener = await loop.create_server(
                    node.gate.accept, hosts, port, start_serving=False
                )
            self._to_stop = True
            await self._listener.start_serving()
        except (OSError, ConnectError) as error:
            why = getattr(error, "strerror", None) or error
            raise NetworkError(f"cannot listen on {format_address(host, port)}: {why}") from error
        self.port = self._listener.sockets[0].getsockname()[1]

    def task_failed(self, name: str, error: BaseException) -> None:
        """A task of the node ended by an exception: `stop` will raise the first one."""
        logger.error("%s failed", name, exc_info=error)
        if self._failure is None:
            self._failure = error


def _accept_no_more(listener: asyncio.Server) -> None:
    """Leave who dials now to the kernel. A closed `asyncio.Server` drops the sockets that it has
    accepted in the same turn of the loop, without closing them."""
    loop = asyncio.get_running_loop()
    with suppress(NotImplementedError):  # of loops that have no readers
        for sock in listener.sockets:
            loop.remove_reader(sock.fileno())


async def _turns() -> None:
    for _ in range(_SOCKET_TURNS):
        await asyncio.sleep(0)
