"""Messages as bytes: declare, encode, frame, decode, handle, and what bad bytes get.

docs/protocol.md lists all 21 messages. Run it: ``python examples/message_protocol.py``
"""

from __future__ import annotations

import asyncio
from typing import Annotated

from moderntensor import MessageCodec, MessageType, NodeConfig, P2PNode, Peer
from moderntensor.backend import framing
from moderntensor.errors import DecodeError, EncodeError, FrameError
from moderntensor.network.messages import (
    CAPS,
    GetHeadersMessage,
    NewBlockHashesMessage,
    PingMessage,
    PongMessage,
    Status,
)
from moderntensor.wire import Hash32, Max, Record, U, list8, record, u64


@record
class Sighting(Record):
    """A record of our own. The order of its fields is their order on the wire; type checkers
    see plain ints, bytes and tuples."""

    height: u64
    peers: Annotated[int, U(2, lo=1, hi=500)]  # two bytes, and only these values
    hashes: Annotated[list8[Hash32], Max(4)] = ()  # a count in one byte, then the items


def records() -> None:
    """Every value has exactly one encoding; wrong values are refused when encoding."""
    sighting = Sighting(height=258, peers=3, hashes=(b"\xaa" * 32,))
    print(f"a record of our own: {sighting.encode().hex()}")
    assert Sighting.decode(sighting.encode()) == sighting
    try:
        sighting.replace(peers=501).encode()
    except EncodeError as error:
        print(f"  refused: {error}")


def frames() -> None:
    """A frame is a length (4 bytes, counting what follows), a type byte, and the payload."""
    frame = MessageCodec.encode(PingMessage(nonce=7))
    print(f"PING with nonce 7: {frame.hex(' ')}")
    assert MessageCodec.decode(frame) == PingMessage(nonce=7)

    ask = GetHeadersMessage(request_id=1, start_height=100, max_headers=10)
    print(f"{ask.TYPE.name} has {len(ask.encode())} bytes, at most {ask.CAP}; HEADERS answers it")
    assert ask.REPLY is MessageType.HEADERS


def streams() -> None:
    """TCP splits and joins as it likes; the decoder gives whole frames whatever the pieces."""
    stream = MessageCodec.encode(PingMessage(nonce=1)) + MessageCodec.encode(PongMessage(nonce=1))
    decoder = framing.FrameDecoder(CAPS)
    for start in range(0, len(stream), 11):
        piece = stream[start : start + 11]
        found = [MessageCodec.decode_payload(f.type, f.payload) for f in decoder.feed(piece)]
        print(f"  fed {len(piece):2} bytes: {[type(m).__name__ for m in found]}")


def bad_bytes() -> None:
    """Every mistake has its error, all of them ValueErrors, and no half-made object escapes."""
    ping = MessageCodec.encode(PingMessage(nonce=7))
    too_short = ping[:3] + bytes((8,)) + ping[4:-1]  # the length is right, a byte is missing
    for what, data in {
        "a payload cut short": too_short,
        "a type that does not exist": bytes.fromhex("00000001ff"),
        "a frame without a type": bytes(4),
    }.items():
        try:
            MessageCodec.decode(data)
        except DecodeError as error:
            print(f"{what}: {type(error).__name__}: {error}")
    # A decoder knows the cap of each type and does not wait for what is too large anyway: five
    # bytes are enough. On a live connection this costs the sender the connection.
    decoder = framing.FrameDecoder(CAPS)
    decoder.feed(bytes.fromhex("00ffffff01"))
    assert isinstance(decoder.error, FrameError)
    print(f"a huge PING: {decoder.error}")


async def live() -> None:
    """A handler on a live node: it is awaited for each message of its type, peer by peer."""
    local = NodeConfig(listen_host="127.0.0.1", listen_port=0)
    heard: asyncio.Queue[NewBlockHashesMessage] = asyncio.Queue()

    async def on_hashes(peer: Peer, message: NewBlockHashesMessage) -> None:
        await heard.put(message)

    async with P2PNode(config=local) as listener, P2PNode(config=local) as speaker:
        listener.register_handler(MessageType.NEW_BLOCK_HASHES, on_hashes)
        peer = await speaker.connect_peer("127.0.0.1", listener.listen_port)
        peer.send(NewBlockHashesMessage(hashes=((b"\xbb" * 32, 42),)))
        message = await asyncio.wait_for(heard.get(), 10)
        print(f"the handler got {type(message).__name__}: block {message.hashes[0][1]}")

        # A request is awaited with its reply; the node keeps ids, limits and timeouts.
        reply = await peer.request(GetHeadersMessage(start_height=1))
        print(f"asked a node without a chain for headers: {Status(reply.status).name}")


async def main() -> None:
    """All parts in turn."""
    records()
    frames()
    print("two frames, in pieces of 11 bytes:")
    streams()
    bad_bytes()
    await live()


if __name__ == "__main__":
    asyncio.run(main())
