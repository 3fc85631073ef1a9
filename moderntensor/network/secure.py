"""The encrypted transport: a Noise handshake, then records (docs/protocol.md, section 4)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from struct import Struct
from typing import ClassVar, Final

from ..backend import framing
from ..errors import HandshakeError, NetworkError, ProtocolViolationError, SecureChannelError
from .channel import LARGE, Channel
from .identity import NodeIdentity
from .noise import KEY_SIZE, TAG_SIZE, CipherState, XXHandshake
from .protocol import DisconnectCode

__all__ = ["PROLOGUE", "RECORD_MAX", "REKEY_INTERVAL", "SecureChannel", "Workspace", "looks_like"]

PROLOGUE: Final = b"moderntensor/1"
RECORD_MAX: Final = 256 * 1024  # plaintext bytes of a record: the protocol, section 4
REKEY_INTERVAL: Final = 2**20  # records: the protocol, section 4

# The handshake's messages, all with empty payloads: e; e, ee, s, es; s, se.
_HANDSHAKE: Final = (
    KEY_SIZE,
    KEY_SIZE + KEY_SIZE + TAG_SIZE + TAG_SIZE,
    KEY_SIZE + TAG_SIZE + TAG_SIZE,
)
_PREFIX: Final = Struct(">H")  # before a handshake message
_LENGTH: Final = Struct(">I")  # before a record: its ciphertext and tag
# Whoever coalesces sends no record that is short and ends no frame. So many in a row are let pass,
# a HELLO byte by byte among them: 8 ms of work, where opening a read full of them takes 46.
_SHORT: Final = 1024
_SHORT_IN_A_ROW: Final = 2048
_FEW: Final = 16  # so many parts are put together in place, more by `join`
_FIELD_PRIME: Final = 2**255 - 19

# The first two bytes of what comes by mistake.
_STRANGERS: Final = {
    b"\0\0": "plaintext",
    _PREFIX.pack(_HANDSHAKE[0]): "the encrypted transport",
    _PREFIX.pack(_HANDSHAKE[1]): "the encrypted transport",
    b"SS": "SSH",
    **dict.fromkeys((b"\x15\x03", b"\x16\x03"), "TLS"),
    **dict.fromkeys((b"GE", b"PO", b"HE", b"PU", b"OP", b"CO", b"PR", b"DE", b"HT"), "HTTP"),
}


def looks_like(first: bytes | bytearray) -> str | None:
    """What a stream that begins with these bytes, two at least, may be; None if nothing known."""
    return _STRANGERS.get(bytes(first[:2]))


class Workspace:
    """Memory for one record on its way in or out, that all channels of one loop can share."""

    __slots__ = ("gathered", "made")

    def __init__(self) -> None:
        self.gathered = memoryview(bytearray(SecureChannel.seal_limit))
        self.made = memoryview(bytearray(_LENGTH.size + RECORD_MAX + TAG_SIZE))


class SecureChannel(Channel):
    """Frames in records that nobody on the way can read, change, drop from the middle or repeat.

    The other side is who holds the key `remote_key`. Of an unfinished record there is held what
    has come of it; an idle channel holds two keys.
    """

    # Our longest records fill one read of the other side, two or four of them, where they need not
    # be copied to be put together. What is held of one, and what the kernel did not take, is under
    # 128 KiB where frames are large: blocks of that size come from the kernel page by page.
    seal_limit: ClassVar[int] = framing.DEFAULT_BUFFER_SIZE // 2 - _LENGTH.size - TAG_SIZE
    slice_size: ClassVar[int] = framing.DEFAULT_BUFFER_SIZE // 4 - _LENGTH.size - TAG_SIZE
    lends: ClassVar[bool] = True

    def __init__(
        self,
        decoder: framing.FrameDecoder,
        identity: NodeIdentity,
        *,
        initiator: bool,
        entropy: Callable[[int], bytes],
        shared: memoryview,
        workspace: Workspace,
        expected_id: bytes | None = None,
        rekey_interval: int = REKEY_INTERVAL,
    ) -> None:
        """`shared` is where all channels of the loop read to, `workspace` theirs as well;
        `expected_id` is the only key that the other side may have. The `initiator` dialled."""
        super().__init__(decoder)
        self._identity = identity
        self._initiator = initiator
        self._expected_id = expected_id
        self._shared = shared
        self._workspace = workspace
        self._rekey_interval = rekey_interval
        self._noise: XXHandshake | None = XXHandshake(
            identity.key, initiator=initiator, entropy=entropy, prologue=PROLOGUE
        )
        # Which message of the handshake is next; who dialled begins.
        self._step = 0
        self._write: Callable[[bytes], None]
        self._sending: CipherState
        self._receiving: CipherState
        self._remote_key: bytes | None = None
        # What came of a handshake message or a record; more only while the decoder pauses.
        self._held = bytearray()
        self._crumbs = 0  # short records since the last one that ended a frame

    # --- what it is ------------------------------------------------------------------------

    @property
    def ready(self) -> bool:
        return self._noise is None

    @property
    def remote_key(self) -> bytes | None:
        return self._remote_key

    @property
    def pending(self) -> int:
        return len(self._held) + self.decoder.pending

    @property
    def expected(self) -> int:
        length = 0
        if self._noise is None and len(self._held) >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(self._held)
        return max(length, self.decoder.expected)

    def discard(self) -> None:
        super().discard()
        self._held = bytearray()

    def ended(self) -> NetworkError | None:
        if self._noise is None:
            if not self._held:
                return super().ended()
            return SecureChannelError(
                f"the other side closed the connection {len(self._held)} bytes into a record"
            )
        why = "; it may speak plaintext, or have no place for us" if self._initiator else ""
        return SecureChannelError(
            f"the other side closed the connection during the encrypted handshake{why}"
        )

    # --- in --------------------------------------------------------------------------------

    def start(self, write: Callable[[bytes], None]) -> None:
        self._write = write
        if self._initiator and self._noise is not None:
            self._say(self._noise)

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._shared

    def received(self, n: int) -> list[framing.Frame]:
        if self._noise is None and n < LARGE and not self._held:
            # As mostly: one read is one small record.
            decoder, view = self.decoder, self._shared
            head = view[: _LENGTH.size]
            size = n - _LENGTH.size
            if (
                size > TAG_SIZE
                and int.from_bytes(head, "big") == size
                and decoder.error is None
                and not decoder.paused
            ):
                return self._record(decoder, head, view[_LENGTH.size : n])
        try:
            return self._take(self._shared[:n])
        except NetworkError as error:
            self.error = error
            return []

    def resume(self) -> list[framing.Frame]:
        frames = self.decoder.resume()
        held, self._held = self._held, bytearray()
        with memoryview(held) as view:
            frames += self._records(view)
        return frames

    def _take(self, view: memoryview) -> list[framing.Frame]:
        while self._noise is not None:
            wanted = _PREFIX.size + _HANDSHAKE[self._step] - len(self._held)
            self._held += view[:wanted]
            view = view[wanted:]
            if not self._handshake(self._noise):
                return []
        return self._records(view)

    # --- handshake -------------------------------------------------------------------------

    def _handshake(self, noise: XXHandshake) -> bool:
        """Read the message that is held; False if it is not complete."""
        size, held = _HANDSHAKE[self._step], self._held
        if len(held) >= _PREFIX.size and _PREFIX.unpack_from(held) != (size,):
            kind = looks_like(held[:2]) or f"something else (it begins {held[:2].hex()})"
            raise SecureChannelError(f"the other side speaks {kind}, not our encrypted transport")
        if len(held) < _PREFIX.size + size:
            return False
        noise.read(bytes(held[_PREFIX.size :]))
        held.clear()
        self._step += 1
        if noise.remote_static is not None:
            self._remote_key = self._check(noise.remote_static)
        if not noise.done:
            self._say(noise)
        if noise.done:
            self._sending, self._receiving = noise.split()
            self._noise = None
        return True

    def _say(self, noise: XXHandshake) -> None:
        message = noise.write()
        self._write(_PREFIX.pack(len(message)) + message)
        self._step += 1

    def _check(self, key: bytes) -> bytes:
        """Whom we talk to; who dialled knows it before it says who it is."""
        if key == self._identity.node_id:
            raise HandshakeError(DisconnectCode.SELF, "connected to itself")
        if self._expected_id not in (None, key):
            raise HandshakeError(DisconnectCode.IDENTITY, "another node_id than expected")
        if int.from_bytes(key, "little") >= _FIELD_PRIME:  # it would be a second id of one node
            raise SecureChannelError("a key that is not encoded canonically")
        return key

    # --- records ---------------------------------------------------------------------------

    def _records(self, view: memoryview) -> list[framing.Frame]:
        """The frames that the records in `view` complete. Where the decoder pauses, the records
        behind it wait unopened: its own room is limited."""
        frames: list[framing.Frame] = []
        decoder, at = self.decoder, 0
        while decoder.error is None and not decoder.paused:
            try:
                plain, at = self._open(view, at)
            except SecureChannelError as error:
                self.error = error
                return frames
            if plain is None:
                return frames
            ended = decoder.feed(plain)
            if ended:
                frames += ended
                self._crumbs = 0
            elif len(plain) < _SHORT and not self._spare_crumb():
                return frames
        self._held += view[at:]
        return frames

    def _record(
        self, decoder: framing.FrameDecoder, head: memoryview, sealed: memoryview
    ) -> list[framing.Frame]:
        """The frames that one whole record completes."""
        try:
            plain = self._turn(self._receiving).decrypt(sealed, head)
        except SecureChannelError as error:
            self.error = error
            return []
        frames = decoder.feed(plain)
        if frames:
            self._crumbs = 0
        elif len(plain) < _SHORT:
            self._spare_crumb()
        return frames

    def _spare_crumb(self) -> bool:
        """Let a short record pass that ended no frame, unless there were too many."""
        self._crumbs += 1
        if self._crumbs <= _SHORT_IN_A_ROW:
            return True
        self.error = ProtocolViolationError(
            DisconnectCode.PROTOCOL_ERROR,
            f"{self._crumbs} records in a row under {_SHORT} bytes that end no frame",
        )
        return False

    def _open(self, view: memoryview, at: int) -> tuple[memoryview | None, int]:
        """What is in the record that ends at or behind `at`, until the next one is opened or
        sealed; None if it is not complete. And where it ends."""
        held, start = self._held, at
        if held:
            at = self._hold(view, at, _LENGTH.size)
            if len(held) >= _LENGTH.size:
                at = self._hold(view, at, _LENGTH.size + _record_length(held, 0))
            if len(held) < _LENGTH.size or len(held) < _LENGTH.size + _record_length(held, 0):
                return None, at
            view, start, self._held = memoryview(held), 0, bytearray()
            body = len(held)
        else:
            size = len(view) - at
            if size < _LENGTH.size or size < _LENGTH.size + _record_length(view, at):
                held += view[at:]
                return None, len(view)
            body = at = at + _LENGTH.size + _record_length(view, at)
        head = start + _LENGTH.size
        plain = self._workspace.made[: body - head - TAG_SIZE]
        self._turn(self._receiving).decrypt_into(view[head:body], view[start:head], plain)
        return plain, at

    def _hold(self, view: memoryview, at: int, size: int) -> int:
        """Hold `size` bytes of a record, as far as they are there; where what was taken ends."""
        end = min(at + max(0, size - len(self._held)), len(view))
        self._held += view[at:end]
        return end

    def seal(self, parts: Sequence[bytes | memoryview]) -> Sequence[bytes | memoryview]:
        data = self._joined(parts)
        size = len(data) + TAG_SIZE
        length, cipher = _LENGTH.pack(size), self._turn(self._sending)
        if size < LARGE:
            return (length + cipher.encrypt(data, length),)
        record = self._workspace.made[: _LENGTH.size + size]
        record[: _LENGTH.size] = length
        cipher.encrypt_into(data, length, record[_LENGTH.size :])
        return (record,)

    def _joined(self, parts: Sequence[bytes | memoryview]) -> bytes | memoryview:
        if len(parts) == 1:
            return parts[0]
        if len(parts) > _FEW:
            return b"".join(parts)
        gathered, at = self._workspace.gathered, 0
        for part in parts:
            gathered[at : at + len(part)] = part
            at += len(part)
        return gathered[:at]

    def _turn(self, cipher: CipherState) -> CipherState:
        """The cipher for the next record of its direction, with a new key where one is due."""
        if cipher.nonce and not cipher.nonce % self._rekey_interval:
            cipher.rekey()
        return cipher


def _record_length(data: bytearray | memoryview, at: int) -> int:
    """Raises `SecureChannelError` if no record is so long."""
    length: int = _LENGTH.unpack_from(data, at)[0]
    if not TAG_SIZE < length <= RECORD_MAX + TAG_SIZE:
        raise SecureChannelError(f"a record of {length} bytes")
    return length
