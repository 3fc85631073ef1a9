"""Streams between two processes, one way, over loopback TCP."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial

from ..case import OURS, Case, Contender, Mark, Scale
from ..streams import ONE_BY_ONE, PLAIN, PURE, RAW, TLS, WEBSOCKETS
from ..streams.pair import Pair
from ..streams.work import DISTINCT, burst

TITLE = "Streams between two processes"

_DIFFERS = {
    ONE_BY_ONE: "as ours, but the program calls send() for each message",
    PLAIN: "the payload travels as it is, not as JSON: only its framing and its I/O are compared",
    TLS: "encrypted",
    RAW: "no messages: bytes alone, from 1 MiB that is sent again and again into one buffer",
}
_BOUND = (
    "most of it is the kernel's work. On two cores of an AMD EPYC in a virtual machine 64 KiB cost"
    " bare sockets 10 µs of CPU at the sender and 22 to 28 µs at the receiver, picows 20 to 24"
    " and 17 to 22, ours 31 to 35 and 23 to 26, so the sender bounds it. picows hands the payload"
    " to the kernel where it is; a frame of ours is one bytes object, copied once before, and one"
    " or two page faults of about 3 µs come with it, where malloc gave freed frames back. 1.5"
    " times picows would be little more than bare sockets take."
)
_NOTE = (
    "{burst} messages are ready at a time, {distinct} different ones in turns; the sender frames"
    " each and then waits if it is told to. WebSockets are unmasked and uncompressed."
)


def cases(scale: Scale) -> Iterator[Case]:
    names = (OURS, ONE_BY_ONE, PURE, *WEBSOCKETS, TLS, PLAIN, RAW)
    with ExitStack() as stack:
        pairs = {name: stack.enter_context(Pair(name)) for name in names}
        for size, label, over_websockets, over_plain in (
            (64, "64 B", 8.0, 15.0),
            (1024, "1 KiB", 4.0, 8.0),
            (65536, "64 KiB", 1.5, 1.8),
        ):
            bound = _BOUND if size == 65536 else ""
            marks = [
                Mark(over_websockets, WEBSOCKETS, bound=bound),
                Mark(over_plain, (PLAIN,), bound=bound),
            ]
            if size == 65536:
                marks.append(Mark(0.6, (RAW,), percent=True))
            yield Case(
                f"messages of {label}",
                "messages/s",
                tuple(_contender(name, pair, size, scale) for name, pair in pairs.items()),
                tuple(marks),
                check=partial(_check, pairs, size),
                note=_NOTE.format(burst=burst(size), distinct=DISTINCT),
            )


def _contender(name: str, pair: Pair, size: int, scale: Scale) -> Contender:
    def sample() -> float:
        return pair.run_for(size, scale.pick(0.5, 0.15)).rate

    return Contender(name, sample, _DIFFERS.get(name, ""))


def _check(pairs: dict[str, Pair], size: int) -> None:
    """Every message arrives as it was sent, in order, everywhere."""
    digests = {name: pair.run(size, 2 * DISTINCT, keep=True).digest for name, pair in pairs.items()}
    del digests[RAW]  # that its bytes are complete has been seen by `run`
    assert len(set(digests.values())) == 1 and None not in digests.values(), digests
