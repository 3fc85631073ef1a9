"""What a node takes from others, or from its disk, on the way to a state: chunks and nodes as they
travel, and proofs of single accounts."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from hashlib import sha256
from itertools import count

from moderntensor.backend import merkle
from moderntensor.blockchain.genesis import ChainConfig
from moderntensor.blockchain.proofs import AccountProof, prove_account
from moderntensor.blockchain.snapshots.file import (
    NODE_FLOOR,
    PAGE,
    Snapshot,
    SnapshotInfo,
    encode_page,
)
from moderntensor.blockchain.snapshots.image import MemoryImage
from moderntensor.blockchain.state import StateDB
from moderntensor.blockchain.validation import BlockValidator
from moderntensor.errors import ModernTensorError, StorageError

from ..reader import Reader
from ..twins import same
from . import Target

RECORD, KEY, ADDRESS = 108, 32, 20
COUNTS = (48, 0, 1, 2**32, 2**64 - 1)
THRESHOLDS = (16, 0, 1, 2, 5, 2**32 - 1, 2**64)
DEEP = 9  # bits that addresses of the pool have in common


@cache
def _pool() -> tuple[bytes, ...]:
    """Addresses in the order of their keys; the last half of them crowd under one prefix."""
    near = int.from_bytes(sha256(bytes(ADDRESS)).digest(), "big") >> 256 - DEEP
    numbers = (n.to_bytes(ADDRESS, "big") for n in count())
    crowd = (a for a in numbers if int.from_bytes(sha256(a).digest(), "big") >> 256 - DEEP == near)
    found = [bytes([n]) * ADDRESS for n in range(1, 25)] + [next(crowd) for _ in range(24)]
    return tuple(sorted(found, key=lambda address: sha256(address).digest()))


def _records(reader: Reader) -> bytearray:
    """Accounts in their order, then perhaps changed."""
    chosen, size = reader.number(6), len(_pool())
    packed = bytearray().join(
        address + bytes(7) + bytes([reader.below(3)]) + bytes(15) + reader.fixed(1) + bytes(64)
        for n, address in enumerate(_pool())
        if chosen >> n % size & 1
    )
    for _ in range(reader.below(3)):
        at = reader.number(2) % (len(packed) + 1)
        match reader.below(4):
            case 0:
                packed[at : at + 1] = reader.take(1)
            case 1:
                del packed[at : at + reader.below(130)]
            case 2:
                at -= at % RECORD
                packed[at : at + 2 * RECORD] = (
                    packed[at + RECORD : at + 2 * RECORD] + packed[at : at + RECORD]
                )
            case _:
                packed[at:at] = reader.chunk()
    return packed


def records(data: bytes) -> None:
    """What a STATE carries, as the stage of the sync hands it to the engine."""
    reader = Reader(data)
    packed = bytes(_records(reader))
    deep = reader.flag()
    depth = reader.number(2) % 260 if deep else reader.below(DEEP + 2)
    key = reader.pick((sha256(packed[:ADDRESS]).digest(), bytes(KEY), b"\xff" * KEY, b"short"))
    shift = max(0, 256 - depth)
    prefix = (int.from_bytes(key, "big") >> shift << shift).to_bytes(KEY, "big")
    place = depth, key if reader.below(8) == 7 else prefix
    threshold, rows = reader.pick(THRESHOLDS), not reader.flag()
    kind, found = same(
        lambda e: e.merkle.state_records(packed, *place, threshold, rows), OverflowError
    )
    if kind != "value":
        return
    digest, number, nodes, kept = found
    assert number == len(packed) // RECORD
    keyed = b"".join(
        sha256(packed[at : at + ADDRESS]).digest() + packed[at + ADDRESS : at + RECORD]
        for at in range(0, len(packed), RECORD)
    )
    assert same(lambda e: e.merkle.state_subtree(keyed, *place))[1] == (digest, number)
    assert (not kept) if not rows else len(kept) == number
    for name, node in nodes:
        assert len(name) == 1 + KEY and len(node) == 80


def proof(data: bytes) -> None:
    """A proof as somebody hands it to us."""
    try:
        found = AccountProof.from_json(data.decode("utf-8", "replace"))
    except ModernTensorError:
        return
    assert AccountProof.from_json(found.to_json()) == found, "written and read, it is another one"
    if found.verify(_proved().state_root):
        true = _true().get(found.address)
        assert found.account is not None or true is None, "an account that is there is denied"
        assert found.account is None or found.account.balance == true, "a false balance is proved"


@cache
def _image() -> bytes:
    """A snapshot of the pool's accounts, as it is written."""
    packed = b"".join(
        address + bytes(8) + bytes(15) + bytes([10 + n]) + bytes(64)
        for n, address in enumerate(_pool())
    )
    root, number, nodes, _ = merkle.state_records(packed, 0, bytes(KEY), NODE_FLOOR // 8, False)
    content = packed + b"".join(name + node for name, node in sorted(nodes))
    info = SnapshotInfo(64, b"\7" * 32, root, number)
    return encode_page(info, len(nodes), sha256(content).digest()) + content


def snapshot(data: bytes) -> None:
    """A file in place of a snapshot: cut off, grown, altered, with its checksums set right or
    not. What is found out when it is opened is a StorageError; what is not is what was written."""
    reader, image = Reader(data), bytearray(_image())
    for _ in range(reader.below(4)):
        at = reader.number(2) % (len(image) + 1)
        match reader.below(3):
            case 0:
                image[at : at + 1] = reader.fixed(1)
            case 1:
                del image[at : at + reader.number(2)]
            case _:
                image[at:at] = reader.chunk()
    seals, place = reader.below(3), (reader.below(DEEP), reader.fixed(KEY))
    if seals == 2 and len(image) >= PAGE:  # a page that is whole says something else
        counts = reader.pick(COUNTS), reader.pick(COUNTS)
        info = SnapshotInfo(reader.number(2), reader.fixed(32), reader.fixed(32), counts[0])
        image[:PAGE] = encode_page(info, counts[1], reader.fixed(32))
    opening = Snapshot.opening(MemoryImage(bytes(image)))
    try:
        for _ in opening:
            pass
    except StorageError:
        assert bytes(image) != _image(), "a good snapshot is refused"
        return
    assert bytes(image) == _image(), "what was altered is taken for a snapshot"
    found = Snapshot(MemoryImage(bytes(image)))
    for _ in found.checking():
        pass
    shift = 256 - place[0]
    prefix = (int.from_bytes(place[1], "big") >> shift << shift).to_bytes(KEY, "big")
    records = found.records(place[0], prefix, len(_pool()))
    assert records is not None
    node, number = found.node(place[0], prefix), len(records) // RECORD
    assert (node is not None) == (number > 1)
    if node is not None:
        whole = merkle.state_records(records, place[0], prefix)
        left, right = ((half[:32], int.from_bytes(half[32:], "big")) for half in _halves(node))
        assert merkle.state_node(*left, *right) == whole[0]


def _halves(node: bytes) -> tuple[bytes, bytes]:
    return node[:40], node[40:]


@cache
def _true() -> dict[bytes, int]:
    return {address: 10 + n for n, address in enumerate(_pool())}


@cache
def _proofs() -> tuple[AccountProof, ...]:
    state = StateDB(None)
    config = ChainConfig(chain_id=1, timestamp=1_700_000_000, alloc=_true())
    chain = BlockValidator(state, config).chain
    asked = (_pool()[0], _pool()[-1], bytes(19) + b"\7", b"\xee" * ADDRESS)
    found = tuple(prove_account(chain.store, address) for address in asked)
    state.close()
    return found


def _proved() -> AccountProof:
    return _proofs()[0]


def _record_seeds() -> Iterator[bytes]:
    every = b"\xff" * 6
    funds = b"\1\5" * len(_pool())
    for choice in (bytes(6), b"\0\0\0\0\0\1", b"\0\0\0\0\xff\xff", every):
        yield choice + funds + bytes(8)
        yield choice + funds + b"\1\0\x20\2" + bytes(8)  # two change places
    yield every + bytes(2 * len(_pool())) + bytes(8)  # accounts of nothing
    yield b"\0\0\0\0\0\3" + b"\1\5" * 2 + b"\0\0\6\0\0\1\0"


def _proof_seeds() -> Iterator[bytes]:
    for found in _proofs():
        yield found.to_json().encode()


def _snapshot_seeds() -> Iterator[bytes]:
    yield bytes(40)
    yield b"\1\x20\0\0\7" + bytes(40)
    yield b"\1\0\x20\1\0\1" + bytes(40)
    yield b"\0\2\3" + bytes(40)
    for depth in range(DEEP):
        yield bytes([0, 0, depth]) + sha256(_pool()[-1]).digest()


TARGETS = {
    "state-records": Target(records, _record_seeds, longest=400),
    "account-proof": Target(
        proof,
        _proof_seeds,
        longest=6000,
        words=(
            *(b'"path":', b'"account":', b'"balance":', b'"nonce":', b'"block":', b'"header":'),
            *(b"null", b"{", b"}", b"[", b"]", b'"0x', b"1e9", b"-1", b"true", b"\\u0663"),
        ),
        native=False,
    ),
    "snapshot-file": Target(snapshot, _snapshot_seeds, longest=300, native=False),
}
