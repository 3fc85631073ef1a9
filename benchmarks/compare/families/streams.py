"""Streams between two processes, one way, over loopback TCP."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial

from moderntensor.network.noise import KEY_SIZE, TAG_SIZE, CipherState
from moderntensor.network.send_queue import WRITE_SIZE

from ..case import OURS, Case, Contender, Mark, Scale
from ..streams import ENCRYPTED, ONE_BY_ONE, PLAIN, PURE, RAW, TLS, WEBSOCKETS
from ..streams.pair import Pair
from ..streams.work import DISTINCT, burst

TITLE = "Streams between two processes"

_CIPHER = "AES-256-GCM alone"
_DIFFERS = {
    _CIPHER: "no stream: one core, which only encrypts, in records of 96 KiB",
    ONE_BY_ONE: "as ours, but the program calls send() for each message",
    PLAIN: "the payload travels as it is, not as JSON: only its framing and its I/O are compared",
    ENCRYPTED: "as nodes use it: Noise, AES-256-GCM",
    TLS: "TLS 1.3",
    RAW: "no messages: bytes alone, from 1 MiB that is sent again and again into one buffer",
}
_BOUND = (
    "the kernel copies each byte twice, and that is most of the work. On two cores of an AMD EPYC"
    " in a virtual machine bare sockets alone took 23,400 messages of 64 KiB a second where picows"
    " took 38,800 and ours 31,100: 1.5 times picows would be 2.5 times bare sockets (their 1 MiB"
    " buffer does not fit into a core's cache of 512 KiB), 1.8 times plain 1.7 times. Ours and"
    " picows both hand the payload to the kernel where it is and copy it once at the receiver:"
    " 21 to 27 µs of processor a message at the sender against 22 to 29, and 21 to 32 against 20 to"
    " 24 at the receiver, where a read of 256 KiB becomes four payloads that live together,"
    " picows's one after another."
)
_AES = (
    "each end has to encrypt what plaintext never touches. On two cores of an AMD EPYC a message of"
    " 64 KiB took plaintext 18 µs of processor at the sender and 22 at the receiver; the cipher"
    f" alone takes 20 ({_CIPHER}, in the table of the same run), so that half of plaintext is what"
    " it leaves at best. Both ends encrypt at once, and with both cores at it the cipher took 27 to"
    " 42 µs where one alone took 25. Ours took 74 and 73, of which the copy that gathers one is"
    " 2 and the one to a payload of its own 3 while they are in the cache"
)
_NOTE = (
    "{burst} messages are ready at a time, {distinct} different ones in turns; the sender frames"
    " each and then waits if it is told to. WebSockets are unmasked and uncompressed."
)


def cases(scale: Scale) -> Iterator[Case]:
    names = (OURS, ENCRYPTED, ONE_BY_ONE, PURE, *WEBSOCKETS, TLS, PLAIN, RAW)
    with ExitStack() as stack:
        pairs = {name: stack.enter_context(Pair(name)) for name in names}
        for size, label, over_websockets, over_plain, of_plaintext, over_tls in (
            (64, "64 B", 8.0, 15.0, 0.8, 1.1),
            (1024, "1 KiB", 4.0, 8.0, 0.55, 1.3),
            (65536, "64 KiB", 1.5, 1.8, 0.55, 1.3),
        ):
            bound = _BOUND if size == 65536 else ""
            marks = [
                Mark(over_websockets, WEBSOCKETS, bound=bound),
                Mark(over_plain, (PLAIN,), bound=bound),
                Mark(
                    of_plaintext,
                    (OURS,),
                    percent=True,
                    ours=ENCRYPTED,
                    bound=_AES if size > 64 else "",
                ),
                Mark(over_tls, (TLS,), ours=ENCRYPTED),
            ]
            if size == 65536:
                marks.append(Mark(0.6, (RAW,), percent=True))
            yield Case(
                f"messages of {label}",
                "messages/s",
                (
                    *(_contender(name, pair, size, scale) for name, pair in pairs.items()),
                    Contender(_CIPHER, partial(_encrypt, size, scale), _DIFFERS[_CIPHER]),
                ),
                tuple(marks),
                check=partial(_check, pairs, size),
                note=_NOTE.format(burst=burst(size), distinct=DISTINCT),
            )


def _contender(name: str, pair: Pair, size: int, scale: Scale) -> Contender:
    def sample() -> float:
        return pair.run_for(size, scale.pick(0.5, 0.15)).rate

    return Contender(name, sample, _DIFFERS.get(name, ""))


def _encrypt(size: int, scale: Scale) -> float:
    """How many messages of `size` bytes the cipher takes a second."""
    cipher, record = CipherState(bytes(KEY_SIZE)), bytes(WRITE_SIZE)
    sealed, length = memoryview(bytearray(WRITE_SIZE + TAG_SIZE)), bytes(4)
    count, began = 0, time.perf_counter()
    while (taken := time.perf_counter() - began) < scale.seconds:
        cipher.encrypt_into(record, length, sealed)
        count += 1
    return count * WRITE_SIZE / size / taken


def _check(pairs: dict[str, Pair], size: int) -> None:
    """Every message arrives as it was sent, in order, everywhere."""
    digests = {name: pair.run(size, 2 * DISTINCT, keep=True).digest for name, pair in pairs.items()}
    del digests[RAW]  # that its bytes are complete has been seen by `run`
    assert len(set(digests.values())) == 1 and None not in digests.values(), digests
