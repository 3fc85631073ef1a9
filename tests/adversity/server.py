"""Hostile peers that serve: a chain of their own making, answered for by hand."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from moderntensor.blockchain.block import Block

from . import scene, state_scene, wire
from .hostile import WAIT, Hostile, Target, new_host
from .noise_wire import NoiseLine, PlainLine, public_of
from .own_tree import OwnTree

SOFT_REPLY_LIMIT = 2 * wire.MIB  # docs/protocol.md, section 3
MOST_ACCOUNTS = 5_000  # less than the protocol allows, so that a state is asked for in parts
CAPABILITIES = (b"sync/1", b"relay/1", b"state/1")
Answer = Callable[[wire.Asked], bytes | None]


class ChainServer:
    """Answers as an honest node with these blocks above the genesis block would. Subclasses
    and `bodies` say otherwise."""

    def __init__(self, blocks: Sequence[Block], genesis: Block | None = None) -> None:
        self.blocks = (scene.maker().genesis if genesis is None else genesis, *blocks)
        self.heights = {block.hash: height for height, block in enumerate(self.blocks)}
        self.headers = [block.header.encode() for block in self.blocks]
        self.bodies = {block.hash: block.body for block in self.blocks}
        self.asked: list[wire.Asked] = []

    @property
    def claim(self) -> tuple[int, bytes]:
        """What HELLO says of the head."""
        return len(self.blocks) - 1, self.blocks[-1].hash

    def __call__(self, asked: wire.Asked) -> bytes | None:
        self.asked.append(asked)
        match asked.kind:
            case wire.GET_HEADERS:
                return self.header_reply(asked)
            case wire.GET_BLOCK_BODIES:
                return self.body_reply(asked)
            case wire.GET_BLOCKS:
                part = self.blocks[asked.start : asked.most + 1]
                status = wire.OK if part else wire.NOT_FOUND
                return wire.blocks(asked.request_id, [block.encode() for block in part], status)
            case wire.GET_PEERS:
                return wire.peers(asked.request_id, [])
        return wire.empty_reply(wire.REQUESTS[asked.kind], asked.request_id, wire.NOT_FOUND)

    def body_reply(self, asked: wire.Asked) -> bytes:
        found: list[bytes] = []
        known = [self.bodies[h] for h in asked.hashes if h in self.bodies]
        for body in known:  # the first in any case, the others up to the soft limit
            if found and sum(map(len, found)) + len(body) > SOFT_REPLY_LIMIT:
                break
            found.append(body)
        status = wire.OK if len(found) == len(known) else wire.PARTIAL
        return wire.bodies(asked.request_id, found, status if found else wire.NOT_FOUND)

    def header_reply(self, asked: wire.Asked) -> bytes:
        start = asked.start
        if asked.hashes:
            known = [self.heights[h] for h in asked.hashes if h in self.heights]
            if not known:
                return wire.headers(asked.request_id, [], wire.NOT_FOUND)
            start = known[0] + 1
        if asked.on_chain is not None and asked.on_chain not in self.heights:
            return wire.headers(asked.request_id, [], wire.NOT_FOUND)
        part = self.headers[start :: asked.stride][: asked.most]
        return wire.headers(asked.request_id, part)


class StateServer(ChainServer):
    """One that has snapshots besides, and says so."""

    def __init__(self, height: int, *snapshots: int) -> None:
        """The chain of the scene up to `height`, its states after some of the blocks."""
        super().__init__(state_scene.chain()[:height], state_scene.maker().genesis)
        self.trees = {self.blocks[at].hash: state_scene.tree_at(at) for at in snapshots}
        self.served: list[tuple[int, tuple[int, bytes]]] = []  # (type of request, place)

    def snapshots(self) -> list[tuple[int, bytes]]:
        """What its PONGs announce."""
        return [(self.heights[name], name) for name in self.trees]

    def __call__(self, asked: wire.Asked) -> bytes | None:
        if asked.kind not in (wire.GET_STATE, wire.GET_STATE_NODES):
            return super().__call__(asked)
        self.asked.append(asked)
        tree = self.trees.get(asked.block_hash)
        if tree is None:
            return self.missing(asked)
        self.served += [(asked.kind, place) for place in asked.places]
        if asked.kind == wire.GET_STATE:
            return self.state_reply(asked, tree)
        return self.nodes_reply(asked, tree)

    def missing(self, asked: wire.Asked) -> bytes:
        """What it says of a snapshot that it does not have."""
        status = wire.PRUNED if asked.block_hash in self.heights else wire.NOT_FOUND
        return wire.empty_reply(wire.REQUESTS[asked.kind], asked.request_id, status)

    def state_reply(self, asked: wire.Asked, tree: OwnTree) -> bytes:
        records = tree.records(*asked.places[0])
        if len(records) > MOST_ACCOUNTS:
            return wire.empty_reply(wire.STATE, asked.request_id, wire.TOO_LARGE)
        return wire.state(asked.request_id, records)

    def nodes_reply(self, asked: wire.Asked, tree: OwnTree) -> bytes:
        nodes: list[bytes] = []
        for place in asked.places:
            node = tree.node(*place)
            if node is None:
                break
            nodes.append(node)
        status = wire.OK if len(nodes) == len(asked.places) else wire.PARTIAL
        return wire.state_nodes(asked.request_id, nodes, status if nodes else wire.NOT_FOUND)


class Serving:
    """A connection whose other end is answered by a thread, until it ends."""

    def __init__(self, peer: Hostile, answer: Answer) -> None:
        self.peer = peer
        self.answer = answer
        self.received: list[tuple[int, bytes]] = []
        self.asked: list[wire.Asked] = []
        self.ended = threading.Event()
        self.goodbye: wire.Goodbye | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        with suppress(OSError, ValueError, AssertionError):
            for asked in self.peer.asked(3600):
                self.asked.append(asked)
                reply = self.answer(asked)
                if reply is not None:  # if it is too late for it, why is still to be read
                    self.peer.try_send(reply)
        self.goodbye = self.peer.goodbye
        self.ended.set()

    def code(self) -> int | None:
        """The code with which the node parted."""
        assert self.ended.wait(WAIT), "the node did not part"
        return None if self.goodbye is None else self.goodbye.code

    def stop(self) -> None:
        with suppress(OSError):
            self.peer.sock.shutdown(socket.SHUT_RDWR)
        self._thread.join(WAIT)
        self.peer.close()


@contextmanager
def serving(
    target: Target, answer: Answer, host: str | None = None, **hello: Any
) -> Iterator[Serving]:
    """Meet the node and serve it; a `ChainServer` claims its head, a
    `StateServer` its snapshots, unless `hello` says other."""
    if isinstance(answer, ChainServer):
        height, block_hash = answer.claim
        hello = {"best_height": height, "best_hash": block_hash, **hello}
    if isinstance(answer, StateServer):
        hello = {"capabilities": CAPABILITIES, **hello}
    peer = Hostile.meet(target, host, **hello)
    peer.claim = (hello.get("best_height", 0), hello.get("best_hash", bytes(32)))
    if isinstance(answer, StateServer):
        peer.snapshots = answer.snapshots
    peer.sock.settimeout(None)
    served = Serving(peer, answer)
    try:
        yield served
    finally:
        served.stop()


class Listener:
    """Somewhere that the node may dial: each connection meets `behaviour` in a thread."""

    def __init__(self, behaviour: Callable[[socket.socket], None], host: str | None = None) -> None:
        self.host = host or new_host()
        self._server = socket.create_server((self.host, 0))
        self.port: int = self._server.getsockname()[1]
        self.dialled = 0
        self._open: socket.socket | None = None
        self._behaviour = behaviour
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        with suppress(OSError):
            while True:
                sock, _ = self._server.accept()
                self.dialled += 1
                self._open = sock
                with sock, suppress(OSError, EOFError, AssertionError):
                    sock.settimeout(WAIT)
                    self._behaviour(sock)

    def close(self) -> None:
        for sock in (self._server, self._open):
            with suppress(OSError):
                if sock is not None:
                    sock.shutdown(socket.SHUT_RDWR)
        self._server.close()
        self._thread.join(WAIT)

    def __enter__(self) -> Listener:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def accepted(
    sock: socket.socket,
    target: Target,
    secret: bytes,
    meanwhile: Callable[[], None] | None = None,
    **hello: Any,
) -> tuple[Hostile, wire.Hello]:
    """The answering side of a connection that the node has dialled, HELLOs exchanged; `meanwhile`
    is called between the node's and ours."""
    peer = Hostile.__new__(Hostile)
    peer.target, peer.sock, peer.secret = target, sock, secret
    peer.host = sock.getsockname()[0]
    peer.node_id = public_of(secret)
    peer.line = NoiseLine(sock, secret, initiator=False) if target.secure else PlainLine(sock)
    kind, payload = peer.read()
    assert kind == wire.HELLO
    peer.hello = wire.Hello.decode(payload)
    if meanwhile is not None:
        meanwhile()
    peer.send(wire.frame(wire.HELLO, peer.make_hello(**hello).encode()))
    return peer, peer.hello
