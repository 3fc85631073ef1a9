"""Headers: all rules but signatures over the bytes of a reply, and what hashing alone takes."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from types import ModuleType

import rlp
from rlp.sedes import CountableList

from moderntensor import backend
from moderntensor._ext import headers as compiled
from moderntensor._pure import headers as pure
from moderntensor.errors import HeaderChainError

from ..case import OURS, Case, Contender, Mark, Scale
from ..header_chains import (
    ANCHOR,
    BLOCK_TIME,
    GAS_LIMIT,
    GENESIS_TIME,
    PLAIN_RULES,
    VALIDATORS,
    Chain,
    chain,
    headers,
    plain_headers,
)
from ..plain.headers import HeaderError, check_headers, decode_headers, encode_headers
from ..records_rlp import RlpHeader, rlp_header
from ..timing import calls

TITLE = "Headers"

REPLY = 2000  # headers
MANY = 100_000
PLAIN_SHARE = 5000
ELSEWHERE = 128 << 20  # bytes, several times what caches hold

BARE = "bare compression"
HASHLIB = "hashlib, hashes alone"
PLAIN = "plain"
OWN_CHAIN = "JSON, hashes in hexadecimal over the JSON of each header: a chain of its own"

# Measured on a Zen 3 by leaving parts out, undisturbed: 121 ns a header.
BOUND = (
    "two headers at once took the bare compression from 204 to 104 ns a header, beside which the "
    "rest weighs twice as much as before: 4 ns padding, 5 ns finding the headers, 8 ns rules, "
    "which makes 86 % where nothing else runs. Where neighbours use the shared cache, ours loses "
    "more, for it reads the headers twice, once to find them, and stores their hashes. Against "
    "the compression of one stream it stands above 100 %"
)

RLP_LIST = CountableList(RlpHeader)


def cases(scale: Scale) -> Iterator[Case]:
    yield _hot(scale)
    yield _cold(scale)
    yield _implementations(scale)


# --- ways to check ---------------------------------------------------------------------------


def _rules(engine: ModuleType) -> object:
    return engine.HeaderRules(GENESIS_TIME, BLOCK_TIME, GAS_LIMIT, VALIDATORS)


def _check_reply(engine: ModuleType, rules: object, now: int, payload: bytes) -> None:
    engine.HeaderBatch(payload).check(ANCHOR, rules, now)


def _check_joined(engine: ModuleType, rules: object, now: int, data: bytes) -> None:
    engine.HeaderBatch.from_concatenated(data).check(ANCHOR, rules, now)


def _check_plain(now: int, payload: bytes) -> None:
    check_headers(decode_headers(payload), ANCHOR.hash.hex(), 0, ANCHOR.timestamp, PLAIN_RULES, now)


def _hash_all(encoded: Sequence[bytes]) -> list[bytes]:
    sha256 = hashlib.sha256
    return [sha256(raw).digest() for raw in encoded]


def _decode_rlp(payload: bytes) -> list[bytes]:
    """The headers of an RLP list as objects, and the hash of each one's own bytes."""
    sha256 = hashlib.sha256
    return [sha256(rlp.encode(header)).digest() for header in rlp.decode(payload, RLP_LIST)]


# --- results ---------------------------------------------------------------------------------


def _same_results(reply: Chain, payload: bytes, rlp_payload: bytes) -> None:
    """All accept the chain, ours know the same hashes, and all find the same bad header."""
    right = _hash_all(reply.encoded)
    assert compiled._hash_padded(reply.padded(), 5) == b"".join(right)
    bad = REPLY // 2
    spoilt = bytearray(reply.payload())
    at = 2 + sum(map(len, reply.encoded[:bad])) + 180  # gas_used
    spoilt[at : at + 8] = (GAS_LIMIT + 1).to_bytes(8, "big")
    for engine in (compiled, pure):
        rules = _rules(engine)
        _check_reply(engine, rules, reply.now, reply.payload())
        assert engine.HeaderBatch(reply.payload()).hashes() == right
        try:
            _check_reply(engine, rules, reply.now, bytes(spoilt))
        except HeaderChainError as error:
            assert (error.height, error.rule) == (bad + 1, "gas_used")
        else:
            raise AssertionError("a broken rule was not seen")
    _check_plain(reply.now, payload)
    damaged = decode_headers(payload)
    damaged[bad] = replace(damaged[bad], gas_used=GAS_LIMIT + 1)
    try:
        _check_plain(reply.now, encode_headers(damaged))
    except HeaderError as error:
        assert str(error) == f"{bad + 1}: gas_used"
    else:
        raise AssertionError("a broken rule was not seen by the plain design")
    assert len(_decode_rlp(rlp_payload)) == REPLY


# --- cases -----------------------------------------------------------------------------------


def _sha_mark() -> tuple[Mark, ...]:
    """What hashlib is to be beaten by, where instructions for it are in use."""
    in_use = compiled.sha256_implementation()
    target = {"avx512": 2.8, "sha-ni": 1.5, "armv8": 1.5}.get(in_use)
    return () if target is None else (Mark(target, (HASHLIB,)),)


def _hot(scale: Scale) -> Case:
    reply = chain(REPLY)
    payload = encode_headers(plain_headers(REPLY))
    rlp_payload = rlp.encode([rlp_header(header) for header in headers(REPLY)], RLP_LIST)

    def contender(
        name: str, function: Callable[..., object], *arguments: object, differs: str = ""
    ) -> Contender:
        return calls(scale, name, function, *arguments, units=REPLY, differs=differs)

    return Case(
        f"check of {REPLY:,} headers, hot",
        "headers/s",
        (
            contender(OURS, partial(_check_reply, compiled, _rules(compiled), reply.now),
                      reply.payload()),
            contender("pure", partial(_check_reply, pure, _rules(pure), reply.now),
                      reply.payload()),
            contender(BARE, compiled._hash_padded, reply.padded(), 5,
                      differs="compresses five blocks a header that are padded already, as many "
                      "headers at once as ours does, and nothing else"),
            contender("bare compression, one stream", compiled.sha256, bytes(64 * 5 * REPLY),
                      differs="as many blocks, but of one message: no two of them at once"),
            contender(HASHLIB, _hash_all, reply.encoded,
                      differs="is handed each header as bytes of its own; checks no rule"),
            contender(PLAIN, partial(_check_plain, reply.now), payload, differs=OWN_CHAIN),
            contender("rlp", _decode_rlp, rlp_payload,
                      differs="decodes the headers and hashes each with hashlib; checks no rule"),
        ),
        (Mark(0.85, (BARE,), percent=True, bound=BOUND), *_sha_mark()),
        check=partial(_same_results, reply, payload, rlp_payload),
    )  # fmt: skip


def _cold(scale: Scale) -> Case:
    many = chain(MANY)
    share = PLAIN_SHARE
    elsewhere = bytes(ELSEWHERE)
    target = 8.0 if compiled.sha256_implementation() == "avx512" else 5.0

    def contender(
        name: str, check: Callable[[bytes], None], data: bytes, count: int, differs: str = ""
    ) -> Contender:
        def sample() -> float:
            passes, spent = 0, 0.0
            while not passes or spent < scale.seconds:
                elsewhere.count(b"\1")  # reads all of it, so that no cache holds the headers
                began = time.perf_counter()
                check(data)
                spent += time.perf_counter() - began
                passes += 1
            return count * passes / spent

        return Contender(name, sample, differs)

    return Case(
        f"check of {MANY:,} headers, cold",
        "headers/s",
        (
            contender(OURS, partial(_check_joined, compiled, _rules(compiled), many.now),
                      many.joined(), MANY),
            contender("pure", partial(_check_joined, pure, _rules(pure), many.now),
                      many.joined(), MANY),
            contender(PLAIN, partial(_check_plain, many.now),
                      encode_headers(plain_headers(share)), share,
                      f"{OWN_CHAIN}; the first {share:,} headers only"),
        ),
        (Mark(target, ("pure",)), Mark(30.0, (PLAIN,))),
        note=f"before each pass {ELSEWHERE >> 20} MiB of other memory are read; the pass begins "
        "with the bytes and makes the batch",
    )  # fmt: skip


def _implementations(scale: Scale) -> Case:
    """The same check with each SHA-256 that works here."""
    reply = chain(REPLY)
    data = reply.payload()
    check = partial(_check_reply, compiled, _rules(compiled), reply.now)
    names = compiled.sha256_implementations()

    def contender(name: str, label: str) -> Contender:
        timed = calls(scale, label, check, data, units=REPLY)

        def sample() -> float:
            backend.force_sha256(name)
            try:
                return timed.sample()
            finally:
                backend.force_sha256(None)

        return Contender(label, sample)

    def same() -> None:
        right = _hash_all(reply.encoded)
        for name in names:
            backend.force_sha256(name)
            try:
                assert compiled.HeaderBatch(data).hashes() == right, name
            finally:
                backend.force_sha256(None)

    return Case(
        f"check of {REPLY:,} headers, each SHA-256",
        "headers/s",
        tuple(contender(name, OURS if name == names[0] else f"forced {name}") for name in names),
        check=same,
        note=f"{OURS} uses {names[0]} here",
    )
