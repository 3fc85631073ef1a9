"""SHA-256 of both twins, and of every implementation in C, against what is published."""

from __future__ import annotations

import hashlib
import platform
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers.headers import RawHeader, batch_bytes
from helpers.state_reference import account, pack, subtree

import moderntensor._ext.headers as compiled_headers
import moderntensor._ext.merkle as compiled_merkle
from moderntensor import backend
from moderntensor.errors import DecodeError, EncodeError

Sha256 = Callable[[bytes], bytes]

# FIPS 180-2 examples and NIST's additional ones (messages of every padding case), CAVP short ones.
PUBLISHED = [
    (b"", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
    (b"abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
    (
        b"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
        "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1",
    ),
    (
        b"abcdefghbcdefghicdefghijdefghijkefghijklfghijklmghijklmn"
        b"hijklmnoijklmnopjklmnopqklmnopqrlmnopqrsmnopqrstnopqrstu",
        "cf5b16a778af8380036ce59e7b0492370b249b11e8f07a51afac45037afee9d1",
    ),
    (b"a" * 1_000_000, "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0"),
    (b"\xbd", "68325720aabd7c82f30f554b313d0570c95accbb7dc4b5aae11204c08ffe732b"),
    (b"\xd3", "28969cdfa74a12c82f3bad960b0b000aca2ac329deea5c2328ebc6f2ba9802c1"),
    (bytes.fromhex("11af"), "5ca7133fa735326081558ac312c620eeca9970d1e70a4b95533d956f072d1f98"),
    (bytes.fromhex("c98c8e55"), "7abc22c0ae5af26ce93dbb94433a0e0b2e119d014f8e7f65bd56c61ccccd9504"),
    (bytes(55), "02779466cdec163811d078815c633f21901413081449002f24aa3e80f0b88ef7"),
    (bytes(56), "d4817aa5497628e7c77e6b606107042bbba3130888c5f47a375e6179be789fbb"),
    (bytes(57), "65a16cb7861335d5ace3c60718b5052e44660726da4cd13bb745381b235a1785"),
    (bytes(64), "f5a5fd42d16a20302798ef6ed309979b43003d2320d9f0e8ea9831a92759fb4b"),
    (bytes(1000), "541b3e9daa09b20bf85fa273e5cbd3e80185aa4ec298e765db87742b70138a53"),
    (b"A" * 1000, "c2e686823489ced2017f6059b8b239318b6364f6dcd835d0a519105a1eadd6e4"),
    (b"U" * 1005, "f4d62ddec0f3dd90ea1380fa16a5ff8dc4c54b21740650f24afc4120903552b0"),
    (bytes(1_000_000), "d29751f2649b32ff572b5e0a9f541ea660a50f94ff0beedfb0b692b924cc8025"),
]


IN_C = ["avx512", "sha-ni", "avx2", "armv8", "portable"]
HERE = [name for name in IN_C if name in backend.sha256_implementations()]


def force(request: pytest.FixtureRequest, name: str) -> None:
    """Both engines hash with the implementation until the test has ended."""
    request.addfinalizer(lambda: backend.force_sha256(None))
    backend.force_sha256(name)


@pytest.fixture(params=HERE)
def forced(request: pytest.FixtureRequest) -> str:
    """Each implementation in C in turn, in both engines that hash."""
    name: str = request.param
    force(request, name)
    return name


@pytest.fixture(params=["hashlib", *HERE])
def sha256(request: pytest.FixtureRequest) -> Sha256:
    """The function of the pure twin, and the compiled one over each implementation."""
    if request.param == "hashlib":
        import moderntensor._pure.headers as pure_headers

        return pure_headers.sha256
    force(request, request.param)
    return compiled_headers.sha256


@pytest.mark.parametrize(("message", "digest"), PUBLISHED, ids=lambda v: str(len(v)))
def test_published_vectors(sha256: Sha256, message: bytes, digest: str) -> None:
    assert sha256(message).hex() == digest


def test_every_length_and_block_boundary(sha256: Sha256) -> None:
    rng = random.Random(256)
    lengths = [*range(301), *(64 * n + d for n in (5, 8, 63, 64, 65, 1024) for d in range(-10, 3))]
    for length in lengths:
        message = rng.randbytes(length)
        assert sha256(message) == hashlib.sha256(message).digest(), length


def test_bytes_at_any_alignment(sha256: Sha256) -> None:
    data = random.Random(1).randbytes(512)
    for start in range(17):
        view = memoryview(data)[start : start + 300]
        assert sha256(view) == hashlib.sha256(view).digest()  # type: ignore[arg-type]
    assert sha256(bytearray(data)) == hashlib.sha256(data).digest()  # type: ignore[arg-type]


def test_headers_of_every_size(forced: str) -> None:
    """The path that hashes where the header lies and pads without branches."""
    rng = random.Random(5)
    headers = [
        RawHeader(
            state_root=rng.randbytes(32), extra_data=rng.randbytes(n), signature=rng.randbytes(64)
        )
        for n in [*range(33), *range(32, -1, -1)]
    ]
    batch = compiled_headers.HeaderBatch(batch_bytes(headers))
    assert batch.hashes() == [header.hash for header in headers]
    for i, header in enumerate(headers):
        signed = b"moderntensor/header/1" + header.unsigned
        assert batch.signing_hash(i) == hashlib.sha256(signed).digest()
    assert compiled_headers.sha256_implementation() == forced


def test_trees(forced: str) -> None:
    rng = random.Random(6)
    accounts = [(rng.randbytes(32), account(n, n)) for n in range(50)]
    assert compiled_merkle.state_subtree(pack(accounts)) == subtree(accounts)
    import moderntensor._pure.merkle as pure_merkle

    leaves = [rng.randbytes(n) for n in range(130)]
    assert compiled_merkle.list_root(leaves) == pure_merkle.list_root(leaves)
    assert compiled_merkle.sha256_implementation() == forced


def test_any_number_of_headers_at_once(forced: str) -> None:
    """Some implementations take 2, 8 or 16 side by side: what is left over is hashed as well."""
    rng = random.Random(7)
    headers = [
        RawHeader(extra_data=rng.randbytes(rng.randrange(33)), signature=rng.randbytes(64))
        for _ in range(50)
    ]
    right = [header.hash for header in headers]
    for count in range(51):
        batch = compiled_headers.HeaderBatch(batch_bytes(headers[:count]))
        assert batch.hashes() == right[:count]
        part = compiled_headers.HeaderBatch(batch_bytes(headers))[50 - count :]
        assert part.hashes() == right[50 - count :]


def test_messages_that_carry_their_padding(forced: str) -> None:
    rng = random.Random(8)
    for blocks in range(1, 7):
        size = 64 * blocks - 9 - rng.randrange(min(55, 64 * blocks - 9))
        messages = [rng.randbytes(size) for _ in range(37)]
        tail = b"\x80" + bytes(64 * blocks - 9 - size) + (8 * size).to_bytes(8, "big")
        hashes = compiled_headers._hash_padded(b"".join(m + tail for m in messages), blocks)
        assert hashes == b"".join(hashlib.sha256(m).digest() for m in messages)
    assert compiled_headers._hash_padded(b"", 5) == b""
    with pytest.raises(DecodeError, match="_hash_padded: 319 bytes, must be a multiple of 320"):
        compiled_headers._hash_padded(bytes(319), 5)
    with pytest.raises(EncodeError, match="blocks: 0, must be 1 to 1024"):
        compiled_headers._hash_padded(b"", 0)
    with pytest.raises(TypeError, match="_hash_padded needs bytes, not bytearray"):
        compiled_headers._hash_padded(bytearray(64), 1)  # type: ignore[arg-type]


def test_the_best_implementation_is_chosen() -> None:
    names = compiled_headers.sha256_implementations()
    assert list(names) == [name for name in IN_C if name in names]
    assert compiled_headers.sha256_implementation() == names[0]
    assert names[-1] == "portable"
    cpu = Path("/proc/cpuinfo")
    if cpu.exists() and platform.machine() == "x86_64":
        flags = set(cpu.read_text().split())
        assert ("sha-ni" in names) == ("sha_ni" in flags)
        assert ("avx2" in names) == ("avx2" in flags)
        assert ("avx512" in names) == ({"avx512f", "avx512bw"} <= flags)
        assert ("armv8" in names) == ("sha2" in flags)


def test_all_engines_switch_together(request: pytest.FixtureRequest) -> None:
    names = backend.sha256_implementations()
    request.addfinalizer(lambda: backend.force_sha256(None))
    for name in names:
        backend.force_sha256(name)
        assert backend.sha256_implementation() == name
        if backend.NAME == "compiled":
            assert compiled_headers.sha256_implementation() == name
            assert compiled_merkle.sha256_implementation() == name
    with pytest.raises(ValueError, match="no SHA-256 implementation 'md5' on this machine"):
        backend.force_sha256("md5")
    assert backend.sha256_implementation() == names[-1]
    backend.force_sha256(None)
    assert backend.sha256_implementation() == names[0]


def test_each_twin_names_its_own(engine: Any) -> None:
    names = engine.headers.sha256_implementations()
    assert engine.headers.sha256_implementation() == names[0]
    assert ("hashlib" in names) == (engine.name == "pure")


@pytest.mark.parametrize("value", ["text", 5, None, [1]])
def test_only_bytes_are_hashed(engine: object, value: object) -> None:
    headers = engine.headers  # type: ignore[attr-defined]
    with pytest.raises(TypeError, match=f"sha256 needs bytes, not {type(value).__name__}"):
        headers.sha256(value)
    with pytest.raises((BufferError, ValueError)):
        headers.sha256(memoryview(bytes(10))[::2])
