"""Two blocking sockets that toss the same bytes back and forth: what the machine itself takes."""

from __future__ import annotations

import asyncio
import socket
import threading
import time

from ..streams.work import unpaced
from .end import End

_ASKED, _ANSWERED = bytes(11), bytes(72)  # whole frames of GET_PEERS and PEERS with one record


class RawEnd(End):
    """One thread, one socket, no event loop in between."""

    def __init__(self) -> None:
        super().__init__()
        self._listener = socket.socket()
        self._socket = socket.socket()

    async def listen(self) -> int:
        unpaced(self._listener)
        self._listener.bind(("127.0.0.1", 0))
        self._listener.listen()
        threading.Thread(target=self._answer, daemon=True).start()
        port: int = self._listener.getsockname()[1]
        return port

    async def connect(self, port: int, count: int = 1) -> None:
        unpaced(self._socket)
        self._socket.connect(("127.0.0.1", port))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    async def ready(self, peers: int) -> None:
        """Nothing to wait for: the kernel keeps what comes too early."""

    async def stop(self) -> None:
        self._socket.close()
        self._listener.close()

    @property
    def peer_count(self) -> int:
        return 1

    async def exchange(self, count: int, outstanding: int) -> float:
        assert outstanding == 1
        return await asyncio.get_running_loop().run_in_executor(None, self._ask, count)

    def _ask(self, count: int) -> float:
        sock, size = self._socket, len(_ANSWERED)
        began = time.monotonic()
        for _ in range(count):
            sock.send(_ASKED)
            assert len(sock.recv(size, socket.MSG_WAITALL)) == size
        return time.monotonic() - began

    def _answer(self) -> None:
        sock, _ = self._listener.accept()
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with sock:
            while sock.recv(len(_ASKED), socket.MSG_WAITALL):
                sock.send(_ANSWERED)
