"""Rows 9 to 15: handshakes and identities."""

from __future__ import annotations

import json
import os
import socket
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from . import wire
from .conftest import Live, Row
from .hostile import Hostile, refused, until
from .noise_wire import Handshake, PlainLine, public_of, read_exactly, send_message
from .server import Listener, accepted

pytestmark = pytest.mark.long

PENDING_HANDSHAKES = 50  # docs/security.md
CONNECT_TIMEOUT = 10.0
HANDSHAKE_TIMEOUT = 5.0  # docs/protocol.md, section 4
VECTORS = Path(__file__).parent.parent / "vectors" / "noise_xx.json"


def test_row_09_slow_and_half_open_handshakes(row: Row) -> None:
    """Bounded in number and in time; they take no peer's place."""
    count = PENDING_HANDSHAKES + 30
    peers = [row.connect() for _ in range(count)]
    for peer in peers[::2]:
        peer.sock.sendall(b"\0")  # the first byte of what may become a handshake
    until(lambda: row.live.state()["open"] <= PENDING_HANDSHAKES + 2)
    most = row.live.state()["open"]
    assert len(row.live.peers()) == len(row.before["peers"])
    with Hostile.meet(row.target) as newcomer:  # who does not dawdle gets in
        assert newcomer.answers()
    row.live.advance(HANDSHAKE_TIMEOUT + 1)
    until(lambda: row.live.state()["open"] == 2)
    row.measure(opened=count, most_open=most)


def test_row_09_one_byte_after_the_other(row: Row) -> None:
    """The deadline is that of the whole handshake: bytes that trickle in do not move it."""
    peer = row.connect()
    message = struct.pack(">H", 32) + os.urandom(32)
    for i in range(3):
        row.live.advance(1.5)
        peer.sock.sendall(message[i : i + 1])
    row.live.advance(1.5)
    assert read_all(peer.sock) == b""


def read_all(sock: socket.socket) -> bytes:
    """To the end, which may be a reset."""
    data = bytearray()
    try:
        while chunk := sock.recv(1 << 16):
            data += chunk
    except ConnectionError:
        pass
    return bytes(data)


@pytest.mark.parametrize(
    "changes, code",
    [
        ({"network_id": 2}, wire.WRONG_NETWORK),
        ({"genesis_hash": b"\x07" * 32}, wire.WRONG_GENESIS),
        ({"protocol_version": 2}, wire.UNSUPPORTED_VERSION),
    ],
    ids=["network", "genesis", "version"],
)
def test_row_10_another_network(row: Row, changes: dict[str, object], code: int) -> None:
    peer = row.meet(**changes)
    assert peer.code() == code
    row.live.advance(31)
    assert not refused(row.target, peer.host)  # whoever is there next may be one of ours


def test_row_10_another_network_is_not_dialled_again_for_a_while(
    row: Row, another_live: Callable[..., Live]
) -> None:
    secret = os.urandom(32)

    def other(sock: socket.socket) -> None:
        peer, _ = accepted(sock, row.target, secret, network_id=7)
        peer.ends()

    with Listener(other) as listener:
        node = another_live(bootstrap=[f"{listener.host}:{listener.port}"], refusal_time=600.0)
        until(lambda: listener.dialled)
        node.advance(120)
        assert listener.dialled == 1
        assert node.log("network 7")


def test_row_11_a_node_id_that_was_not_proved(row: Row) -> None:
    if not row.target.secure:
        pytest.skip("plaintext proves nothing")
    peer = row.meet(node_id=public_of(os.urandom(32)))
    assert peer.code() == wire.IDENTITY
    assert row.live.banned(peer.host)
    row.live.advance(31)
    assert refused(row.target, peer.host)


def test_row_12_the_id_of_the_node_itself(row: Row) -> None:
    """Only claimed it is a false identity; proved, by the node that has dialled itself, SELF."""
    peer = row.meet(node_id=row.target.node_id)
    assert peer.code() == wire.IDENTITY
    assert row.live.banned(peer.host)
    row.live.advance(31)  # somebody may just have come from its own address
    assert "itself" in row.live.ask("connect", host="127.0.0.1", port=row.target.port)


def test_row_12_the_newest_of_two_connections_of_one_id(row: Row) -> None:
    first = row.meet(nonce=9)
    row.live.advance(CONNECT_TIMEOUT + HANDSHAKE_TIMEOUT + 1)
    second = again(row, first, nonce=3)
    assert second.read()[0] == wire.HELLO
    assert first.code() == wire.ALREADY_CONNECTED
    assert second.answers()


def again(row: Row, first: Hostile, **hello: int) -> Hostile:
    """Another connection of the same id; HELLO is sent."""
    second = row.connect()
    second.secret, second.node_id = first.secret, first.node_id
    second.secure().send(wire.frame(wire.HELLO, second.make_hello(**hello).encode()))
    return second


@pytest.mark.parametrize("nonce", [9, 3], ids=["greater", "smaller"])
def test_row_12_two_connections_of_one_id_at_a_time(row: Row, nonce: int) -> None:
    """They may have come in another order than they were dialled in: the greater nonce stays."""
    first = row.meet(nonce=5)
    second = again(row, first, nonce=nonce)
    goes, stays = (first, second) if nonce > 5 else (second, first)
    assert goes.code() == wire.ALREADY_CONNECTED
    assert stays.answers()


@pytest.mark.parametrize("lower", [True, False], ids=["lower", "higher"])
def test_row_12_of_two_simultaneous_dials_both_keep_the_same(row: Row, lower: bool) -> None:
    """That of the lower id: ours if we have it, else the node's."""
    secret = os.urandom(32)
    while (public_of(secret) < row.target.node_id) is not lower:
        secret = os.urandom(32)
    codes: list[int | None] = []
    ours = row.connect()
    ours.secret, ours.node_id = secret, public_of(secret)

    def meet() -> None:
        ours.secure().send(wire.frame(wire.HELLO, ours.make_hello().encode()))
        assert ours.read()[0] == wire.HELLO

    def dialled(sock: socket.socket) -> None:
        peer, _ = accepted(sock, row.target, secret, meet)
        codes.append(peer.code())

    with Listener(dialled) as listener:
        said = row.live.ask("connect", host=listener.host, port=listener.port)
        if lower:
            until(lambda: codes == [wire.ALREADY_CONNECTED])
            assert ours.answers()
        else:
            assert said == "connected"
            assert ours.code() == wire.ALREADY_CONNECTED
            (peer,) = (p for p in row.live.peers().values() if p["node_id"] == ours.node_id.hex())
            assert peer["outbound"]


def test_row_13_a_recorded_handshake_played_again(row: Row) -> None:
    """What somebody else once sent opens nothing: the third message fits one session alone."""
    if not row.target.secure:
        pytest.skip("plaintext proves nothing")
    first = row.connect()
    handshake = Handshake(os.urandom(32))
    messages = [handshake.first()]
    send_message(first.sock, messages[0])
    handshake.read_second(read_exactly(first.sock, 98)[2:])
    messages.append(handshake.third())
    send_message(first.sock, messages[1])
    again = row.connect()
    for message in messages:
        send_message(again.sock, message)
    assert len(read_all(again.sock)) == 98  # its second message, and the end
    assert again.address not in row.live.peers()


def test_row_13_its_own_message_sent_back(row: Row) -> None:
    """Dialling, it meets someone who reflects its bytes."""
    if not row.target.secure:
        pytest.skip("plaintext proves nothing")

    def mirror(sock: socket.socket) -> None:
        while data := sock.recv(1 << 16):
            sock.sendall(data)

    with Listener(mirror) as listener:
        said = row.live.ask("connect", host=listener.host, port=listener.port)
    assert said.startswith(("ConnectError", "HandshakeError"))


LOW_ORDER = [
    bytes(32),
    b"\1" + bytes(31),
    bytes.fromhex("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"),
    bytes.fromhex("5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157"),
    bytes.fromhex("ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"),
]


def test_row_13_keys_of_low_order(row: Row) -> None:
    """With which everybody would know the shared secret."""
    if not row.target.secure:
        pytest.skip("plaintext has no keys")
    for key in LOW_ORDER:
        peer = row.connect()
        send_message(peer.sock, key)
        assert read_all(peer.sock) == b""


def test_row_13_a_tampered_record(row: Row) -> None:
    if not row.target.secure:
        pytest.skip("plaintext has no records")
    for change in (4, -1):  # of its ciphertext, of its tag
        peer = row.meet()
        assert peer.line is not None
        record = bytearray(peer.line.seal(wire.ping()))
        record[change] ^= 1
        peer.sock.sendall(record)
        assert peer.code() in (wire.PROTOCOL_ERROR, None)
        until(lambda address=peer.address: address not in row.live.peers())
    replayed = row.meet()
    assert replayed.line is not None
    record = bytearray(replayed.line.seal(wire.ping()))
    replayed.sock.sendall(record + record)
    assert replayed.code() in (wire.PROTOCOL_ERROR, None)
    giant = row.meet()
    giant.sock.sendall(struct.pack(">I", 256 * 1024 + 17) + bytes(64))
    assert giant.code() in (wire.PROTOCOL_ERROR, None)


def test_row_14_a_second_hello(row: Row) -> None:
    peer = row.meet()
    peer.send(wire.frame(wire.HELLO, peer.make_hello().encode()))
    assert peer.code() == wire.PROTOCOL_ERROR


@pytest.mark.parametrize("kind", [wire.PING, wire.GET_HEADERS, wire.NEW_BLOCK, wire.DISCONNECT])
def test_row_14_a_message_before_hello(row: Row, kind: int) -> None:
    """Dropped quietly and without blame: it may be another protocol by mistake."""
    peer = row.connect().secure()
    peer.send({**wire.requests(1), wire.PING: wire.ping()}.get(kind, wire.frame(kind, bytes(9))))
    assert peer.ends() is None


def test_row_15_a_plaintext_peer_on_an_encrypted_port(row: Row) -> None:
    """No downgrade, whoever asks for it, and a clear word to whoever runs the node."""
    if not row.target.secure:
        pytest.skip("the node speaks plaintext")
    peer = row.connect()
    peer.line = PlainLine(peer.sock)
    peer.send(wire.frame(wire.HELLO, peer.make_hello().encode()))
    assert read_all(peer.sock) == b""

    def plain(sock: socket.socket) -> None:
        sock.sendall(wire.frame(wire.HELLO, wire.Hello(node_id=os.urandom(32)).encode()))
        read_all(sock)

    with Listener(plain) as listener:
        said = row.live.ask("connect", host=listener.host, port=listener.port)
    assert "Error" in said
    assert "plaintext" in said


def test_row_15_an_encrypted_peer_on_a_plaintext_port(
    row: Row, another_live: Callable[..., Live]
) -> None:
    if not row.target.secure:
        pytest.skip("the node speaks plaintext")
    node = another_live(transport="plaintext")
    with Hostile(node.target) as peer:
        send_message(peer.sock, Handshake(peer.secret).first())
        assert read_all(peer.sock) == b""
    said = node.ask("connect", host="127.0.0.1", port=row.target.port)
    assert "Error" in said


def test_the_published_vectors_hold_for_this_side_too() -> None:
    """Or the hostile client would prove nothing about the handshake."""
    for vector in json.loads(VECTORS.read_text(encoding="utf-8"))["vectors"]:
        prologue = bytes.fromhex(vector["init_prologue"])
        one = Handshake(bytes.fromhex(vector["init_static"]), prologue=prologue)
        two = Handshake(bytes.fromhex(vector["resp_static"]), prologue=prologue)
        one.ephemeral = bytes.fromhex(vector["init_ephemeral"])
        two.ephemeral = bytes.fromhex(vector["resp_ephemeral"])
        payloads, wanted = (
            [bytes.fromhex(message[what]) for message in vector["messages"]]
            for what in ("payload", "ciphertext")
        )
        first = one.first(payloads[0])
        assert two.read_first(first) == payloads[0]
        second = two.second(payloads[1])
        assert one.read_second(second) == payloads[1]
        third = one.third(payloads[2])
        assert two.read_third(third) == payloads[2]
        assert [first, second, third] == wanted[:3]
        directions = one.split()
        for i, payload in enumerate(payloads[3:], start=3):  # the answerer goes on
            assert directions[i % 2].seal(payload, b"") == wanted[i]
