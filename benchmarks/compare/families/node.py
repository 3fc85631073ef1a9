"""The real node: `P2PNode` to `P2PNode`, in two processes, with handlers in Python."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

from ..case import OURS, Case, Contender, Mark, Scale
from ..nodes.process import Worker
from ..streams import ENCRYPTED

TITLE = "Node"

_OTHERS = (ENCRYPTED, "aiohttp", "plain")
_PEERS = 50
# GET_PEERS alone is asked here, up to 16 at a time; the default allows 16 in all, 8 of a type.
_OURS = {"max_per_type": 16, "max_peers": _PEERS + 10}
_CHECKED = 50
_SILENT = 3600.0  # seconds between pings, where every byte is counted

_SENT = (
    "ours: NEW_BLOCK_HASHES with one hash and height, 46 bytes in all, decoded to objects and "
    "handled twice, by the node's own gossip and by the program's handler"
)
_WIRE = "each its own encoding: 1,036 bytes on the wire, or 2,097 of JSON with hex"
_PLAINTEXT = "all in plaintext but where it says encrypted: AES-GCM, what nodes use by default"
_RAW = "blocking sockets, no event loop: the ceiling that the machine sets"

_SENDING = (
    "making and encoding a message takes the sender about 2 µs of Python, and so does handling it "
    "twice at the receiver"
)
_WAKING = (
    "the interpreter running cold after every wake-up: a request costs either side 24 to 28 µs of "
    "its processor where sixteen come in a row and 80 to 92 µs where it comes alone (aiohttp, more "
    "of which is C: 22 to 34 and 56 to 108); the rest is the kernel waking processes, for bare "
    "sockets 350 µs with a process on each core and 28 µs on one"
)
_PYTHON = (
    "Python on both sides, 52 µs of processor a round trip in all, of which the loop, futures and "
    "tasks are most; aiohttp's takes 84 µs. Requests and replies leave in fours, so that both "
    "processes work at once (all 16 together make 30 % fewer round trips)"
)
_RECEIVING = (
    "sending takes 1 to 2 µs a delivery and receiving 8 to 10, of which decoding the transaction "
    "and hashing it take half; the plain peers share those 50 reads and take 30 on either side"
)


class Pair:
    """Two processes with `peers` connections between them; `near` listens, `far` has dialled."""

    def __init__(self, stack: ExitStack, end: str, peers: int = 1) -> None:
        settings = _OURS if end in (OURS, ENCRYPTED) else {}
        self.end, self.peers = end, peers
        self.near = stack.enter_context(Worker(end, **settings))
        self.far = stack.enter_context(Worker(end, **settings))
        self.far.ask("connect", port=self.near.ask("listen"), count=peers)
        for worker in (self.near, self.far):
            worker.ask("ready", peers=peers)

    def flood(self, count: int) -> float:
        """Messages per second from the first sent to the last handled."""
        self.far.ask("expect", count=count)
        began = self.near.ask("flood", count=count)
        return count / float(self.far.ask("arrived") - began)

    def exchange(self, count: int, outstanding: int) -> float:
        """Round trips per second."""
        return count / float(self.far.ask("exchange", count=count, outstanding=outstanding))

    def broadcast(self, count: int) -> float:
        """Deliveries per second until the last peer has the last transaction."""
        self.near.ask("prepare", count=count)
        self.far.ask("expect", count=count * self.peers)
        began = self.near.ask("broadcast")
        return count * self.peers / float(self.far.ask("arrived") - began)


class Audience:
    """One end with `_PEERS` connections to a process that only reads."""

    def __init__(self, stack: ExitStack, end: str) -> None:
        ours = end == OURS
        settings = {"max_peers": _PEERS + 10, "heartbeat": _SILENT} if ours else {}
        self.end = end
        self.near = stack.enter_context(Worker(end, **settings))
        self.far = stack.enter_context(Worker("readers", hello=ours))
        self.far.ask("connect", port=self.near.ask("listen"), count=_PEERS)
        self.near.ask("ready", peers=_PEERS)

    def broadcast(self, count: int, *, check: bool = False) -> float:
        """Deliveries per second until the last byte is read."""
        self.near.ask("prepare", count=count)
        size, digest = self.near.ask("on_the_wire")
        self.far.ask("expect", count=size * _PEERS, collect=check)
        began = self.near.ask("broadcast")
        arrived = self.far.ask("arrived")
        if check:
            assert self.far.ask("contents") == [digest] * _PEERS
        return count * _PEERS / float(arrived - began)


def cases(scale: Scale) -> Iterator[Case]:
    with ExitStack() as stack:
        pairs = [Pair(stack, end) for end in (OURS, *_OTHERS)]
        yield _one_way(scale, pairs)
        raw = Pair(stack, "raw sockets")
        yield _round_trips(scale, pairs, raw)
        yield _many_round_trips(scale, pairs)
    with ExitStack() as stack:
        yield _broadcast(scale, [Audience(stack, end) for end in (OURS, "plain")])
    with ExitStack() as stack:
        crowds = [Pair(stack, end, _PEERS) for end in (OURS, *_OTHERS)]
        yield _stream_of_transactions(scale, crowds)
        yield _one_transaction(scale, crowds)


def _one_way(scale: Scale, pairs: list[Pair]) -> Case:
    counts = dict.fromkeys((OURS, ENCRYPTED), scale.pick(100_000, 60_000))

    def sample(pair: Pair) -> Callable[[], float]:
        count = counts.get(pair.end, scale.pick(25_000, 10_000))
        return lambda: pair.flood(count)

    return Case(
        "one-way messages of 64 bytes, handled",
        "messages/s",
        tuple(Contender(pair.end, sample(pair), _SENT if pair.end == OURS else "")
              for pair in pairs),
        (Mark(4.0, ("aiohttp",), bound=_SENDING),),
        note=_PLAINTEXT,
        check=lambda: _same_contents(pairs, lambda pair: pair.near.ask("flood", count=_CHECKED)),
    )  # fmt: skip


def _round_trips(scale: Scale, pairs: list[Pair], raw: Pair) -> Case:
    def sample(pair: Pair) -> Callable[[], float]:
        return lambda: pair.exchange(scale.pick(1_000, 200), 1)

    return Case(
        "request and reply, one outstanding",
        "round trips/s",
        (
            *(Contender(pair.end, sample(pair)) for pair in pairs),
            Contender(raw.end, sample(raw), _RAW),
        ),
        (Mark(1.5, ("aiohttp",), bound=_WAKING),),
        check=lambda: _same_answers(pairs),
    )


def _many_round_trips(scale: Scale, pairs: list[Pair]) -> Case:
    def sample(pair: Pair) -> Callable[[], float]:
        return lambda: pair.exchange(scale.pick(9_600, 1_600), 16)

    return Case(
        "request and reply, 16 outstanding",
        "round trips/s",
        tuple(Contender(pair.end, sample(pair)) for pair in pairs),
        (Mark(3.0, ("aiohttp",), bound=_PYTHON),),
        note="NodeConfig(max_per_type=16): all 16 are GET_PEERS, of which the default admits 8",
    )


def _broadcast(scale: Scale, audiences: list[Audience]) -> Case:
    counts = {OURS: scale.pick(1_000, 400)}

    def sample(audience: Audience) -> Callable[[], float]:
        count = counts.get(audience.end, scale.pick(100, 50))
        return lambda: audience.broadcast(count)

    def check() -> None:
        for audience in audiences:
            audience.broadcast(_CHECKED, check=True)

    return Case(
        f"transactions of 1 KiB broadcast to {_PEERS} peers",
        "deliveries/s",
        tuple(Contender(audience.end, sample(audience), _WIRE) for audience in audiences),
        (Mark(10.0, ("plain",)),),
        check=check,
        note="what the sender can do: the same 50 connections of one process read from either and "
        "count bytes; ours is encoded once for all peers (tests/network/test_gossip.py holds it "
        "to that)",
    )


def _stream_of_transactions(scale: Scale, crowds: list[Pair]) -> Case:
    counts = dict.fromkeys((OURS, ENCRYPTED), scale.pick(400, 200))

    def sample(pair: Pair) -> Callable[[], float]:
        count = counts.get(pair.end, scale.pick(100, 50))
        return lambda: pair.broadcast(count)

    def check() -> None:
        def send(pair: Pair) -> None:
            pair.near.ask("prepare", count=1)
            pair.near.ask("broadcast")

        _same_contents(crowds, send)

    return Case(
        f"transactions of 1 KiB broadcast to {_PEERS} peers that handle them",
        "deliveries/s",
        tuple(Contender(pair.end, sample(pair)) for pair in crowds),
        check=check,
        note="no mark, for the receivers bound it, all of them in one process: each decodes the "
        "transaction, hashes it and remembers the hash. " + _RECEIVING,
    )


def _one_transaction(scale: Scale, crowds: list[Pair]) -> Case:
    def sample(pair: Pair) -> Callable[[], float]:
        return lambda: pair.broadcast(1)

    return Case(
        f"one transaction of 1 KiB to {_PEERS} peers, until all have it",
        "deliveries/s",
        tuple(Contender(pair.end, sample(pair)) for pair in crowds),
        rounds=scale.pick(31, 5),
        note="no mark: this is 50 calls of send() and of recv(), alike for all",
    )


def _same_contents(pairs: list[Pair], send: Callable[[Pair], object]) -> None:
    """What arrives is the same with all of them; in a crowd in any order."""
    contents = []
    for pair in pairs:
        pair.far.ask("expect", count=_CHECKED, collect=True)
        send(pair)
        pair.far.ask("arrived")
        contents.append(pair.far.ask("contents"))
    assert all(content == contents[0] for content in contents)
    assert len(contents[0]) == _CHECKED


def _same_answers(pairs: list[Pair]) -> None:
    answers = [pair.far.ask("answer") for pair in pairs]
    assert all(answer == answers[0] for answer in answers)
