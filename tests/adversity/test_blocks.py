"""Rows 39 to 43b and 47: bodies and transactions that are not what they should be."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
from helpers.forks import ACCOUNTS, STRANGER

from moderntensor.blockchain.block import Block
from moderntensor.blockchain.transaction import Transaction

from . import scene, wire
from .conftest import Live, Row
from .hostile import until
from .server import ChainServer, serving

pytestmark = pytest.mark.long

CURVE_ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141


def tip() -> Block:
    return scene.chain()[-1]


def next_block(**changes: bytes) -> Block:
    """A good block on the tip, with transfers."""
    maker = scene.maker()
    transfers = [maker.transfer(tip(), sender, sender + 1) for sender in range(2)]
    return maker.block(tip(), transfers, gap=2, **changes)


def body(transactions: Sequence[Transaction]) -> bytes:
    return len(transactions).to_bytes(4, "big") + b"".join(
        wire.bytes32(tx.encode()) for tx in transactions
    )


WRONG_BODIES: dict[str, Callable[[Block], bytes]] = {
    "other order": lambda block: body(block.transactions[::-1]),
    "one less": lambda block: body(block.transactions[:1]),
    "row 43: last leaf twice": lambda block: body([*block.transactions, block.transactions[-1]]),
    "no body": lambda block: b"\0\0",
    "a byte more": lambda block: block.body + b"\0",
}


@pytest.mark.parametrize("name", WRONG_BODIES)
def test_row_39_a_body_that_does_not_match(row: Row, name: str) -> None:
    """Whoever sends it is banned; the block may still come from another."""
    block = next_block()
    server = ChainServer([*scene.chain(), block])
    server.bodies[block.hash] = WRONG_BODIES[name](block)
    with serving(row.target, server) as served:
        assert served.code() == wire.BAD_BLOCK
    assert row.live.banned(served.peer.host)
    assert not row.live.ask("invalid", block_hash=block.hash.hex())
    assert row.live.state()["height"] == scene.HEIGHT


def test_row_39_the_body_comes_from_another(row: Row, another_live: Callable[..., Live]) -> None:
    node, block = another_live(), next_block()
    liar = ChainServer([*scene.chain(), block])
    liar.bodies[block.hash] = body(block.transactions[::-1])
    with serving(node.target, liar) as served:
        assert served.code() == wire.BAD_BLOCK
        with serving(node.target, ChainServer([*scene.chain(), block])):
            until(lambda: node.state()["hash"] == block.hash.hex())
    row.undisturbed()


@pytest.mark.parametrize("root", ["state_root", "receipts_root"])
def test_row_40_a_block_that_does_not_execute_to_what_it_says(row: Row, root: str) -> None:
    """It is invalid for good, with all that stands on it."""
    maker = scene.maker()
    bad = next_block(**{root: b"\x40" * 32})
    above = maker.block(bad, gap=2)
    server = ChainServer([*scene.chain(), bad, above])
    with serving(row.target, server) as served:
        assert served.code() == wire.BAD_BLOCK
    assert row.live.ask("invalid", block_hash=bad.hash.hex())
    again = ChainServer([*scene.chain(), bad, above, maker.block(above, gap=1)])
    with serving(row.target, again) as served:
        assert served.code() == wire.BAD_BLOCK
        assert not any(asked.kind == wire.GET_BLOCK_BODIES for asked in again.asked)
    assert row.live.state()["hash"] == tip().hash.hex()


# --- transactions --------------------------------------------------------------------------


def signed(**fields: object) -> Transaction:
    return scene.maker().transfer(tip(), 2, 3, **fields)  # type: ignore[arg-type]


def altered(tx: Transaction, change: Callable[[bytearray], None]) -> bytes:
    raw = bytearray(tx.encode())
    change(raw)
    return bytes(raw)


def high_s(raw: bytearray) -> None:
    """The other signature of the same message: s becomes n - s, v the other one."""
    s = CURVE_ORDER - int.from_bytes(raw[-32:], "big")
    raw[-32:] = s.to_bytes(32, "big")
    raw[-65] ^= 1


def other_r(raw: bytearray) -> None:
    raw[-64:-32] = b"\xff" * 32  # no x of any point


NEVER_VALID: dict[str, Callable[[int], bytes]] = {
    "wrong chain": lambda n: signed(chain_id=99, ahead=n).encode(),
    "high s": lambda n: altered(signed(ahead=n), high_s),
    "bad signature": lambda n: altered(signed(ahead=n), other_r),
    "too little gas": lambda n: signed(gas_limit=20_999, ahead=n).encode(),
    "price 0": lambda n: signed(gas_price=0, ahead=n).encode(),
}


@pytest.mark.parametrize("name", NEVER_VALID)
def test_row_41_transactions_that_no_state_admits(row: Row, name: str) -> None:
    """Refused, and whoever relays some of them is gone."""
    peer = row.meet()
    for n in range(12):
        if not peer.try_send(wire.new_transactions([NEVER_VALID[name](n)])):
            break
    assert peer.code() == wire.BAD_TRANSACTION
    assert row.live.state()["mempool"] == row.before["mempool"]


def test_row_41_transactions_that_this_state_does_not_admit(row: Row) -> None:
    """Refused too, but another node may see another state: no blame for some of them."""
    maker, parent = scene.maker(), tip()
    poor = Transaction.create(STRANGER, chain_id=1, nonce=0, to=ACCOUNTS[0].address, value=1)
    overspent = maker.transfer(parent, 2, 3, value=2**127)
    spent_nonce = maker.transfer(parent, 0, 3, ahead=-1)
    peer = row.meet()
    peer.send(wire.new_transactions([tx.encode() for tx in (poor, overspent, spent_nonce)]))
    assert peer.answers()
    row.undisturbed()
    assert row.live.state()["mempool"] == row.before["mempool"]


@pytest.mark.long
def test_row_42_the_same_over_and_over(row: Row) -> None:
    """It is passed on once, and whoever goes on repeating it is gone."""
    tx = scene.maker().transfer(tip(), 3, 0)
    frame = wire.new_transactions([tx.encode()])
    listener = row.meet()
    heard = []

    def hear() -> None:
        while not heard:
            kind, payload = listener.read()
            if kind == wire.NEW_TRANSACTION:
                heard.append(payload)

    first = row.meet()
    first.send(frame)
    hear()
    sent = 0
    while sent < 50_000 and first.try_send(frame * 100):
        sent += 100
    assert first.code() == wire.LIMITS
    second = row.meet()
    for _ in range(20):
        second.send(frame)
    assert second.answers()
    assert listener.answers()  # and in what it was sent before that, nothing came again
    row.measure(sent=sent)


def test_row_43a_another_signature_around_known_content(row: Row) -> None:
    """Another hash: what is known of the true one stays as it is."""
    forged = tip().header.replace(signature=bytes(64))
    peer = row.meet()
    peer.send(wire.new_block(forged.encode()))
    assert peer.code() == wire.BAD_HEADER
    assert not row.live.ask("invalid", block_hash=tip().hash.hex())
    asker = row.meet()
    asker.send(wire.get_headers(1, scene.HEIGHT, 1))
    assert asker.reply(wire.HEADERS).items[2:] == tip().header.encode()
    with serving(row.target, ChainServer([*scene.chain()[:-1]])) as served:
        served.peer.send(wire.new_block(tip().header.encode()))
        row.undisturbed()
        assert not served.ended.is_set()


ESCAPES = [b"\x1b[2J\x1b[31mowned", b"line\nbreak", b"nul\0", b"caf\xe9", b"\x7f"]


def test_row_43b_escape_sequences(row: Row) -> None:
    """Text of others is printable ASCII; what is not is no HELLO."""
    for text in ESCAPES:
        for field in ({"user_agent": text}, {"capabilities": (text,)}):
            peer = row.connect().secure()
            peer.send(wire.frame(wire.HELLO, peer.make_hello(**field).encode()))
            assert peer.ends() is None
    peer = row.meet()
    reason = ESCAPES[0]
    peer.send(
        wire.frame(wire.DISCONNECT, b"\1" + len(reason).to_bytes(2, "big") + reason + bytes(4))
    )
    peer.ends()
    said = row.live.ask("lines", last=100)
    assert all(line.isprintable() for line in said)


def test_row_47_a_pruned_peer(row: Row) -> None:
    """PRUNED is an answer, not a fault."""
    block = next_block()
    server = ChainServer([*scene.chain(), block])

    def pruned(asked: wire.Asked) -> bytes | None:
        if asked.kind == wire.GET_BLOCK_BODIES:
            return wire.bodies(asked.request_id, [], wire.PRUNED)
        return server(asked)

    height, block_hash = server.claim
    with serving(row.target, pruned, best_height=height, best_hash=block_hash) as served:
        until(lambda: any(asked.kind == wire.GET_BLOCK_BODIES for asked in served.asked))
        row.undisturbed()
        if served.ended.is_set():  # of no use, perhaps, but without blame
            assert served.code() in (wire.USELESS, wire.TIMEOUT)
    assert not row.live.banned(served.peer.host)
