"""Handshakes: how many strangers can prove who they are, each to the other, in a second."""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack

from moderntensor.network.identity import NodeIdentity
from moderntensor.network.noise import XXHandshake
from moderntensor.network.secure import PROLOGUE
from moderntensor.runtime import Runtime

from ..case import OURS, Case, Contender, Scale
from ..certificate import contexts, self_signed
from ..nodes.process import Worker

TITLE = "Handshakes"

_PLAINTEXT = f"{OURS}, plaintext"
_TLS = {
    "asyncio TLS 1.3, ECDSA": "ecdsa",
    "asyncio TLS 1.3, Ed25519": "ed25519",
}
_BARE_TLS = {name.removeprefix("asyncio "): kind for name, kind in _TLS.items()}
_MUTUAL = "both sides show a self-signed certificate and check the other's"
_LINE = f"{_MUTUAL}, then send a line of 320 bytes; no book, limits or table of peers"


def cases(scale: Scale) -> Iterator[Case]:
    yield _in_memory(scale)
    with ExitStack() as stack:
        yield _connections(scale, stack)


# --- in memory -------------------------------------------------------------------------------


def _in_memory(scale: Scale) -> Case:
    near, far, entropy = NodeIdentity.generate(), NodeIdentity.generate(), Runtime().entropy

    def noise() -> None:
        one = XXHandshake(near.key, initiator=True, entropy=entropy, prologue=PROLOGUE)
        other = XXHandshake(far.key, initiator=False, entropy=entropy, prologue=PROLOGUE)
        other.read(one.write())
        one.read(other.write())
        other.read(one.write())
        assert (one.remote_static, other.remote_static) == (far.node_id, near.node_id)
        one.split()
        other.split()

    handshakes = {name: _tls(self_signed(kind)) for name, kind in _BARE_TLS.items()}

    def check() -> None:
        noise()
        for shake_hands in handshakes.values():
            shake_hands()

    return Case(
        "both sides in one thread, no sockets",
        "handshakes/s",
        (
            Contender(OURS, _rate(noise, scale)),
            *(Contender(name, _rate(each, scale), _MUTUAL) for name, each in handshakes.items()),
        ),
        check=check,
        note="ours: Noise XX, X25519, AES-256-GCM, SHA-256; half of it is what a listener spends",
    )


def _rate(work: Callable[[], None], scale: Scale) -> Callable[[], float]:
    def sample() -> float:
        count, began = 0, time.perf_counter()
        while (taken := time.perf_counter() - began) < 5 * scale.seconds:
            work()
            count += 1
        return count / taken

    return sample


def _tls(pem: str) -> Callable[[], None]:
    server_side, client_side = contexts(pem)

    def shake_hands() -> None:
        up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
        client = client_side.wrap_bio(down, up)
        server = server_side.wrap_bio(up, down, server_side=True)
        waiting = [client, server]
        while waiting:
            for end in tuple(waiting):
                try:
                    end.do_handshake()
                except ssl.SSLWantReadError:
                    continue
                waiting.remove(end)
        assert client.version() == server.version() == "TLSv1.3"
        assert client.getpeercert(True) and server.getpeercert(True)

    return shake_hands


# --- connections -----------------------------------------------------------------------------


def _connections(scale: Scale, stack: ExitStack) -> Case:
    count = scale.pick(200, 30)
    pems = {name: self_signed(kind) for name, kind in _TLS.items()}

    def sample(end: str, **settings: str) -> Callable[[], float]:
        near, far = (stack.enter_context(Worker(end, **settings)) for _ in range(2))
        port = near.ask("listen")
        far.ask("dial", port=port, count=1)
        return lambda: count / float(far.ask("dial", port=port, count=count))

    return Case(
        "connections between two processes, one after the other",
        "connections/s",
        (
            Contender(OURS, sample("moderntensor, encrypted")),
            Contender(_PLAINTEXT, sample("moderntensor"), "no encryption, nothing is proved"),
            *(Contender(name, sample("TLS", pem=pem), _LINE) for name, pem in pems.items()),
        ),
        note="ours: TCP, Noise, HELLO both ways and a peer on either side, then the end of it",
    )
