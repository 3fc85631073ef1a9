"""A client that does what no honest node would, over a blocking socket."""

from __future__ import annotations

import itertools
import os
import socket
import struct
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from . import wire
from .noise_wire import NoiseLine, PlainLine, public_of

WAIT = 20.0  # seconds until a test that waits for the node fails

# Each test comes from hosts of its own, in netgroups of their own, so that what one did is not
# held against the next.
_hosts = itertools.count()


def new_host() -> str:
    """An address of this machine that nobody has used; each in another /16, and another /24."""
    n = next(_hosts)
    return f"127.{1 + n % 254}.{n // 254 % 254}.{os.getpid() % 200 + 20}"


@dataclass(frozen=True)
class Target:
    """What a client has to know of the node."""

    port: int
    node_id: bytes
    genesis: bytes
    secure: bool = True
    host: str = "127.0.0.1"


class Hostile:
    """One connection; after `meet` it has exchanged HELLOs."""

    def __init__(self, target: Target, host: str | None = None, *, timeout: float = WAIT) -> None:
        """Connect, no more."""
        self.target = target
        self.host = host or new_host()
        self.sock = socket.create_connection(
            (target.host, target.port), timeout, source_address=(self.host, 0)
        )
        self.secret = os.urandom(32)
        self.node_id = public_of(self.secret)
        self.line: NoiseLine | PlainLine | None = None
        self.hello: wire.Hello | None = None

    @property
    def address(self) -> str:
        """What the node calls it."""
        host, port = self.sock.getsockname()
        return f"{host}:{port}"

    def __enter__(self) -> Hostile:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.sock.close()

    def reset(self) -> None:
        """Close without a word of TCP's either."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    # --- beginning -------------------------------------------------------------------------

    def secure(self) -> Hostile:
        """The transport's handshake."""
        if self.target.secure:
            self.line = NoiseLine(self.sock, self.secret)
            assert self.line.remote_id == self.target.node_id
        else:
            self.line = PlainLine(self.sock)
        return self

    def make_hello(self, **changes: Any) -> wire.Hello:
        fields: dict[str, Any] = {
            "genesis_hash": self.target.genesis,
            "node_id": self.node_id,
            "nonce": int.from_bytes(os.urandom(8), "big"),
            **changes,
        }
        return wire.Hello(**fields)

    @classmethod
    def meet(cls, target: Target, host: str | None = None, **hello: Any) -> Hostile:
        """A peer like any other, until now."""
        self = cls(target, host)
        try:
            self.secure()
            self.send(wire.frame(wire.HELLO, self.make_hello(**hello).encode()))
            kind, payload = self.read()
            assert kind == wire.HELLO, (kind, payload)
            self.hello = wire.Hello.decode(payload)
        except BaseException:
            self.close()
            raise
        return self

    # --- bytes -----------------------------------------------------------------------------

    def send(self, *frames: bytes) -> None:
        assert self.line is not None
        self.line.send(b"".join(frames))

    def try_send(self, *frames: bytes) -> bool:
        """Whether it could be sent: False once the node has had enough."""
        try:
            self.send(*frames)
        except OSError:
            return False
        return True

    def read_or_end(self) -> tuple[int, bytes] | None:
        """The next frame; None at the end of the stream."""
        assert self.line is not None
        try:
            head = self.line.read(4)
            if not head:
                return None
            (length,) = struct.unpack(">I", head)
            body = self.line.read(length)
        except ConnectionError:
            return None
        assert len(body) == length, "the stream ended within a frame"
        return body[0], body[1:]

    def read(self) -> tuple[int, bytes]:
        found = self.read_or_end()
        assert found is not None, "the node closed the connection"
        return found

    def read_until(self, kind: int) -> bytes:
        """The next frame of a type; PINGs on the way are answered."""
        while True:
            got, payload = self.read()
            if got == kind:
                return payload
            if got == wire.PING:
                self.send(wire.pong(int.from_bytes(payload, "big")))
            assert got != wire.DISCONNECT, wire.Goodbye.decode(payload)

    def reply(self, kind: int) -> wire.Reply:
        """The next reply of a type."""
        return wire.Reply.decode(self.read_until(kind))

    def ends(self) -> wire.Goodbye | None:
        """Read to the end: the DISCONNECT that came last, None without one."""
        last = None
        while (found := self.read_or_end()) is not None:
            last = found
        if last is None or last[0] != wire.DISCONNECT:
            return None
        return wire.Goodbye.decode(last[1])

    def code(self) -> int | None:
        """The code with which the node parts."""
        goodbye = self.ends()
        return None if goodbye is None else goodbye.code

    def answers(self, nonce: int = 77) -> bool:
        """Whether the node still answers a PING of ours."""
        self.send(wire.ping(nonce))
        while True:
            payload = self.read_until(wire.PONG)
            if int.from_bytes(payload[:8], "big") == nonce:
                return True

    # --- as a server -----------------------------------------------------------------------

    def asked(self, seconds: float = WAIT) -> Iterator[wire.Asked]:
        """What the node asks for; PINGs on the way are answered. Ends with the stream."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            found = self.read_or_end()
            if found is None or found[0] == wire.DISCONNECT:
                self.goodbye = None if found is None else wire.Goodbye.decode(found[1])
                return
            kind, payload = found
            if kind == wire.PING:
                nonce = int.from_bytes(payload, "big")
                self.try_send(wire.pong(nonce, *self.claim, tuple(self.snapshots())))
            elif kind in wire.REQUESTS:
                yield wire.Asked.decode(kind, payload)
        raise AssertionError("the node went on asking")

    goodbye: wire.Goodbye | None = None
    claim: tuple[int, bytes] = (0, bytes(32))  # what its PONGs say of its head
    snapshots: Callable[[], Sequence[tuple[int, bytes]]] = staticmethod(tuple)  # and of these


def refused(target: Target, host: str) -> bool:
    """Whether the node turns away whoever comes from this host."""
    try:
        with Hostile.meet(target, host) as again:
            again.send(wire.ping())
            while (found := again.read_or_end()) is not None:
                if found[0] == wire.DISCONNECT:
                    return wire.Goodbye.decode(found[1]).code == wire.BANNED
                if found[0] == wire.PONG:
                    return False
            return True
    except (AssertionError, ConnectionError, EOFError):
        return True


def until(condition: Callable[[], Any], seconds: float = WAIT, pause: float = 0.02) -> Any:
    """What the condition gives once it is true; AssertionError if it never is."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "it never came to that"
        time.sleep(pause)
    return found
