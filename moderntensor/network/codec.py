"""Messages to frames and back. Import it from `messages`, which declares what it can read."""

from __future__ import annotations

import builtins
from typing import TypeVar

from ..backend import framing
from ..errors import DecodeError, EncodeError, FrameError
from ..wire import MESSAGES
from .protocol import Message

M = TypeVar("M", bound=Message)


class MessageCodec:
    """Messages to bytes and back; it holds no state."""

    @staticmethod
    def encode_payload(message: Message) -> bytes:
        """The payload of `message`. Raises EncodeError naming the field or rule at fault."""
        payload = message.encode()
        if len(payload) > message.CAP:
            raise EncodeError(
                f"{type(message).__name__}: {len(payload)} bytes, at most {message.CAP}"
            )
        fault = message.fault()
        if fault is not None:
            raise EncodeError(f"{type(message).__name__}: {fault}")
        return payload

    @staticmethod
    def encode(message: Message) -> bytes:
        """The whole frame of `message`."""
        return framing.encode_frame(message.TYPE, MessageCodec.encode_payload(message))

    @staticmethod
    def decode_payload(type: int, payload: bytes) -> Message:
        """The message of one frame. FrameError for a type that does not exist or a payload
        over its cap, DecodeError for one that is not exactly the encoding of a message."""
        cls: builtins.type[Message] | None = MESSAGES.get(type)
        if cls is None:
            raise FrameError("unknown", type, len(payload))
        return MessageCodec.decode_as(cls, payload)

    @staticmethod
    def decode_as(kind: type[M], payload: bytes) -> M:
        """The message of a class, which may be an extension's; errors as of `decode_payload`."""
        if len(payload) > kind.CAP:
            raise FrameError("too-large", kind.TYPE, len(payload), kind.CAP)
        decoded = kind.decode(payload)
        fault = decoded.fault()
        if fault is not None:
            raise DecodeError(f"{kind.__name__}: {fault}")
        return decoded

    @staticmethod
    def decode(frame: bytes) -> Message:
        """The message of exactly one whole frame; errors as of `decode_payload`."""
        if len(frame) < 4:
            raise DecodeError(f"frame: needs 4 bytes, {len(frame)} left")
        length = int.from_bytes(frame[:4], "big")
        if length == 0:
            raise FrameError("empty")
        if len(frame) != 4 + length:
            raise DecodeError(f"frame: announces {length} bytes, holds {len(frame) - 4}")
        return MessageCodec.decode_payload(frame[4], frame[5:])
