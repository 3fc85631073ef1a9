"""Both ends of an encrypted stream in memory, every byte in the test's hands."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from moderntensor.backend import framing
from moderntensor.network.channel import new_read_buffer
from moderntensor.network.identity import NodeIdentity
from moderntensor.network.noise import XXHandshake
from moderntensor.network.secure import PROLOGUE, SecureChannel, Workspace

CAPS = {1: 1000, 2: 10 << 20}
DIALLER, LISTENER = NodeIdentity(b"\x01" * 32), NodeIdentity(b"\x02" * 32)
DIALLER_EPHEMERAL, LISTENER_EPHEMERAL = b"\x03" * 32, b"\x04" * 32


def entropy_of(data: bytes) -> Callable[[int], bytes]:
    """Entropy that is the same each time."""

    def entropy(size: int) -> bytes:
        assert size == len(data)
        return data

    return entropy


class End:
    """One `SecureChannel` between two lists: what it wrote, and the frames that it read."""

    def __init__(
        self, *, initiator: bool, identity: NodeIdentity | None = None, **options: Any
    ) -> None:
        self.decoder = framing.FrameDecoder(CAPS, pause_after=options.pop("pause_after", -1))
        self.channel = SecureChannel(
            self.decoder,
            identity or (DIALLER if initiator else LISTENER),
            initiator=initiator,
            entropy=entropy_of(DIALLER_EPHEMERAL if initiator else LISTENER_EPHEMERAL),
            shared=new_read_buffer(),
            workspace=Workspace(),
            **options,
        )
        self.written: list[bytes] = []
        self.frames: list[tuple[int, bytes]] = []
        self.channel.start(self.written.append)

    def receive(self, data: bytes) -> None:
        """Read `data`, a buffer at a time, until an error."""
        while data and self.channel.error is None and not self.channel.decoder.paused:
            buffer = self.channel.get_buffer(-1)
            size = min(len(data), len(buffer))
            buffer[:size] = data[:size]
            self._got(self.channel.received(size))
            data = data[size:]

    def resume(self) -> None:
        self._got(self.channel.resume())

    def _got(self, frames: list[framing.Frame]) -> None:
        self.frames += [(frame.type, frame.payload) for frame in frames]

    def seal(self, *parts: bytes) -> bytes:
        """One record."""
        return b"".join(self.channel.seal(list(parts)))

    def send(self, type: int, payload: bytes) -> bytes:
        """One record with one frame."""
        return self.seal(framing.encode_frame(type, payload))

    def take(self) -> bytes:
        """What it wrote since the last time."""
        data = b"".join(self.written)
        self.written.clear()
        return data


def ends(**options: Any) -> tuple[End, End]:
    """Dialler and listener before the first byte; `options` are for both."""
    return End(initiator=True, **options), End(initiator=False, **options)


def shake_hands(dialler: End, listener: End) -> list[bytes]:
    """The three messages, which both have read then."""
    messages = []
    for writer, reader in ((dialler, listener), (listener, dialler), (dialler, listener)):
        messages.append(writer.take())
        reader.receive(messages[-1])
    return messages


def connected(**options: Any) -> tuple[End, End]:
    """Dialler and listener after the handshake."""
    dialler, listener = ends(**options)
    shake_hands(dialler, listener)
    assert dialler.channel.ready
    assert listener.channel.ready
    return dialler, listener


def handshake(
    identity: NodeIdentity, *, initiator: bool, prologue: bytes = PROLOGUE
) -> XXHandshake:
    """The handshake without the channel around it."""
    return XXHandshake(
        identity.key, initiator=initiator, entropy=entropy_of(b"\x05" * 32), prologue=prologue
    )
