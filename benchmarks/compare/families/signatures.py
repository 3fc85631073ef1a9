"""Signatures: those of a batch of headers, senders of transactions, addresses.

The opponents are the two bindings of libsecp256k1 called in a plain loop, each signature with the
bytes of its key, as their documentation shows it. The loops are handed keys, messages and
signatures ready made; ours begins at the batch, so it cuts them out and hashes as well.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from typing import Any

from btclib_libsecp256k1 import recovery, ssa
from coincurve import PublicKey, PublicKeyXOnly
from coincurve._libsecp256k1 import ffi, lib  # type: ignore[import-not-found]
from coincurve.context import GLOBAL_CONTEXT

from moderntensor._pure import headers as pure_headers
from moderntensor._pure import signatures as pure
from moderntensor.backend import headers, signatures
from moderntensor.blockchain.block import BlockHeader
from moderntensor.blockchain.crypto import (
    CURVE,
    KeyPair,
    address_of,
    keccak256,
    recover_addresses,
    sha256,
)
from moderntensor.blockchain.rules import verify_header_signatures
from moderntensor.network.sync.header_checks import SIGNATURE_SLICE

from ..case import OURS, Case, Contender, Mark, Scale
from ..timing import calls

TITLE = "Signatures"

COUNT = 2000  # headers of one reply
VALIDATORS = 5
BAD = 1234  # the one that is spoilt, where all have to find the same

TWO_THREADS = f"{OURS}, two threads"
COINCURVE = "coincurve in a loop"
BTCLIB = "btclib-libsecp256k1 in a loop"
READY = "is handed key, signing hash and signature ready made; ours cuts and hashes them too"

Triple = tuple[bytes, bytes, bytes]
"""Key, message, signature."""
Recoverable = tuple[bytes, int, bytes]
"""Message, v, r ‖ s."""


def cases(scale: Scale) -> Iterator[Case]:
    with ThreadPoolExecutor(2) as pool:
        yield _headers(scale, pool)
        yield _slices(scale)
        yield _libraries(scale)
        yield _senders(scale, pool)
        yield _addresses(scale)


# --- headers -------------------------------------------------------------------------------


def _keys(count: int) -> list[KeyPair]:
    return [KeyPair.from_secret(bytes((n,)) * 32) for n in range(1, count + 1)]


@cache
def _signed_headers(bad: int | None = None) -> bytes:
    """Encoded headers one after another, that at `bad` with a wrong signature."""
    keys = _keys(VALIDATORS)
    root = sha256(b"state")
    encoded = bytearray()
    for n in range(COUNT):
        header = BlockHeader(
            height=n + 1,
            timestamp=1_700_000_000 + 5 * n,
            previous_hash=sha256(n.to_bytes(4, "big")),
            state_root=root,
            validator=keys[n % VALIDATORS].public_key,
            gas_limit=30_000_000,
        ).sign(keys[n % VALIDATORS])
        encoded += header.encode()
        if n == bad:
            encoded[-1] ^= 1
    return bytes(encoded)


def _triples(batch: headers.HeaderBatch) -> list[Triple]:
    return [
        (batch.validator(i), batch.signing_hash(i), batch.signature(i)) for i in range(len(batch))
    ]


def coincurve_loop(triples: Sequence[Triple]) -> int | None:
    for i, (key, message, signature) in enumerate(triples):
        if not PublicKeyXOnly(key).verify(signature, message):
            return i
    return None


def btclib_loop(triples: Sequence[Triple]) -> int | None:
    for i, (key, message, signature) in enumerate(triples):
        if not ssa.verify(message, key, signature):
            return i
    return None


def pure_check(batch: pure_headers.HeaderBatch) -> int | None:
    return pure.verify_many(CURVE, batch.signature_items())


def in_slices(batch: headers.HeaderBatch, size: int) -> int | None:
    """One after another on this thread."""
    for start in range(0, len(batch), size):
        bad = verify_header_signatures(batch, start, min(start + size, len(batch)))
        if bad is not None:
            return bad
    return None


def on_threads(pool: ThreadPoolExecutor, batch: headers.HeaderBatch) -> int | None:
    """In slices as sync has them, each taken by the thread that is free."""
    starts = range(0, len(batch), SIGNATURE_SLICE)
    check = partial(verify_header_signatures, batch)
    found = pool.map(check, starts, [min(i + SIGNATURE_SLICE, len(batch)) for i in starts])
    return next((bad for bad in found if bad is not None), None)


def loop_on_threads(pool: ThreadPoolExecutor, halves: Sequence[Sequence[Triple]]) -> int | None:
    for at, bad in enumerate(pool.map(coincurve_loop, halves)):
        if bad is not None:
            return at * len(halves[0]) + bad
    return None


def _halves(items: list[Triple]) -> list[list[Triple]]:
    middle = len(items) // 2
    return [items[:middle], items[middle:]]


def _headers(scale: Scale, pool: ThreadPoolExecutor) -> Case:
    data = _signed_headers()
    batch = headers.HeaderBatch.from_concatenated(data)
    pure_batch = pure_headers.HeaderBatch.from_concatenated(data)
    triples = _triples(batch)
    halves = _halves(triples)

    def check() -> None:
        spoilt = _signed_headers(BAD)
        broken = headers.HeaderBatch.from_concatenated(spoilt)
        parts = _triples(broken)
        for good, bad in (
            (verify_header_signatures(batch), verify_header_signatures(broken)),
            (on_threads(pool, batch), on_threads(pool, broken)),
            (coincurve_loop(triples), coincurve_loop(parts)),
            (btclib_loop(triples), btclib_loop(parts)),
            (loop_on_threads(pool, halves), loop_on_threads(pool, _halves(parts))),
            (
                pure_check(pure_batch),
                pure_check(pure_headers.HeaderBatch.from_concatenated(spoilt)),
            ),
        ):
            assert (good, bad) == (None, BAD)

    def contender(name: str, work: Callable[..., int | None], *arguments: object) -> Contender:
        differs = READY if arguments[-1] in (triples, halves) else ""
        return calls(scale, name, work, *arguments, units=COUNT, differs=differs)

    return Case(
        f"signatures of {COUNT:,} headers of {VALIDATORS} validators",
        "signatures/s",
        (
            contender(OURS, verify_header_signatures, batch),
            contender(TWO_THREADS, on_threads, pool, batch),
            contender(COINCURVE, coincurve_loop, triples),
            contender(BTCLIB, btclib_loop, triples),
            contender("coincurve in loops on two threads", loop_on_threads, pool, halves),
            contender("pure", pure_check, pure_batch),
        ),
        (Mark(1.15, (COINCURVE, BTCLIB)), Mark(2.1, (COINCURVE, BTCLIB), ours=TWO_THREADS)),
        check,
        note=f"two threads share slices of {SIGNATURE_SLICE} headers, as in sync",
    )


def _slices(scale: Scale) -> Case:
    batch = headers.HeaderBatch.from_concatenated(_signed_headers())
    sizes = scale.pick((SIGNATURE_SLICE, 192, 64, 1), (SIGNATURE_SLICE, 192))

    def check() -> None:
        broken = headers.HeaderBatch.from_concatenated(_signed_headers(BAD))
        assert {in_slices(broken, size) for size in (COUNT, *sizes)} == {BAD}

    return Case(
        "one thread, in slices",
        "signatures/s",
        (
            calls(scale, OURS, in_slices, batch, COUNT, units=COUNT),
            *(
                calls(scale, f"slices of {size}", in_slices, batch, size, units=COUNT)
                for size in sizes
            ),
        ),
        check=check,
        note="below 64 signatures each is checked alone",
    )


# --- the library beneath -------------------------------------------------------------------


def _coincurve_curve() -> pure.Curve:
    """The libsecp256k1 that coincurve carries, as our engines take a curve."""

    def address(name: str) -> int:
        return int(ffi.cast("uintptr_t", ffi.addressof(lib, name)))

    functions: dict[str, Any] = {
        field: address(f"secp256k1_{'ecdsa_' * field.startswith('recoverable')}{field}")
        for field, value in CURVE._asdict().items()
        if isinstance(value, int) and field != "context"
    }
    context = int(ffi.cast("uintptr_t", GLOBAL_CONTEXT.ctx))
    return CURVE._replace(context=context, **functions)


def _libraries(scale: Scale) -> Case:
    batch = headers.HeaderBatch.from_concatenated(_signed_headers())
    items = batch.signature_items(0, scale.pick(COUNT, 1024))
    few = items[: 128 * 60]
    other = _coincurve_curve()

    def check() -> None:
        spoilt = bytearray(items)
        for bad in (1000, 50):
            spoilt[128 * bad + 127] ^= 1
            for curve in (CURVE, other):
                assert signatures.verify_many(curve, items) is None
                assert signatures.verify_many(curve, bytes(spoilt)) == bad

    def contender(name: str, curve: pure.Curve, part: bytes) -> Contender:
        count = len(part) // signatures.VERIFY_SIZE
        return calls(scale, name, signatures.verify_many, curve, part, units=count)

    return Case(
        "which libsecp256k1, below our engine",
        "signatures/s",
        (
            contender(OURS, CURVE, items),
            contender("with coincurve's", other, items),
            contender("btclib's, each signature alone", CURVE, few),
            contender("coincurve's, each signature alone", other, few),
        ),
        check=check,
        note="ours is that of btclib-libsecp256k1: coincurve's is some percent ahead one by one, "
        "level in one equation; wheels for every Python and for musl decide",
    )


# --- senders -------------------------------------------------------------------------------


def coincurve_senders(signed: Sequence[Recoverable]) -> list[bytes]:
    found = []
    for message, v, compact in signed:
        key = PublicKey.from_signature_and_message(compact + bytes((v,)), message, hasher=None)
        found.append(keccak256(key.format(compressed=False)[1:])[-20:])
    return found


def btclib_senders(signed: Sequence[Recoverable]) -> list[bytes]:
    found = []
    for message, v, compact in signed:
        key = recovery.recover(message, compact, v, compressed=False)
        found.append(keccak256(key[1:])[-20:])
    return found


def pure_senders(items: bytes) -> list[bytes]:
    return [address_of(key) for key in pure.recover_many(CURVE, items) if key is not None]


def senders_on_threads(pool: ThreadPoolExecutor, parts: Sequence[bytes]) -> list[bytes | None]:
    return [address for found in pool.map(recover_addresses, parts) for address in found]


def _senders(scale: Scale, pool: ThreadPoolExecutor) -> Case:
    count = scale.pick(COUNT, 400)
    keys = _keys(200)
    signed: list[Recoverable] = []
    for n in range(count):
        message = sha256(n.to_bytes(4, "big"))
        v, r, s = keys[n % len(keys)].sign_recoverable(message)
        signed.append((message, v, r + s))
    each = [message + bytes((v,)) + compact for message, v, compact in signed]
    items = b"".join(each)
    parts = [b"".join(each[i : i + 50]) for i in range(0, count, 50)]
    right = [keys[n % len(keys)].address for n in range(count)]

    def check() -> None:
        assert recover_addresses(items) == right
        assert senders_on_threads(pool, parts) == right
        assert coincurve_senders(signed) == btclib_senders(signed) == pure_senders(items) == right

    return Case(
        f"senders of transactions, {len(keys)} accounts",
        "senders/s",
        (
            calls(scale, OURS, recover_addresses, items, units=count),
            calls(scale, TWO_THREADS, senders_on_threads, pool, parts, units=count),
            calls(scale, COINCURVE, coincurve_senders, signed, units=count),
            calls(scale, BTCLIB, btclib_senders, signed, units=count),
            calls(scale, "pure", pure_senders, items, units=count),
        ),
        check=check,
        note="each recovery gives another key, so nothing can be shared; addresses of known keys "
        "are remembered",
    )


def _addresses(scale: Scale) -> Case:
    keys = [key.public_key64 for key in _keys(200)]

    def addresses() -> list[bytes]:
        return [address_of(key) for key in keys]

    return Case(
        "address of a public key (Keccak-256 of pycryptodome), not remembered",
        "addresses/s",
        (calls(scale, OURS, addresses, units=len(keys)),),
    )
