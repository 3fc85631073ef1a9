"""The file of the address book: what is saved comes back, what is damaged never gets in."""

from __future__ import annotations

import json
import logging
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from helpers.book import SOMEONE, anyone, far, make_book
from hypothesis import given, settings
from hypothesis import strategies as st

from moderntensor.errors import StorageError
from moderntensor.network.addressbook.file import (
    ADDRESS_FILE,
    ADDRESS_FILE_CAP,
    SavedAddress,
    decode_book,
    encode_book,
)
from moderntensor.network.limits import ADDRESS_BUCKET_SIZE, NEW_BUCKETS, TRIED_BUCKETS

KEY = bytes(range(32))
TRIED = SavedAddress("8.8.8.8", 30303, SOMEONE, 1_795_000_000, 1_795_000_000, 0, True, ())
NEW = SavedAddress("2a00::1", 1, None, 1_795_000_000, 0, 2, False, ("v4:0808", "v6:2a000001"))
TEXT = encode_book(KEY, [TRIED, NEW])

ADDRESSES = st.builds(
    SavedAddress,
    st.one_of(
        st.integers(0x0B000000, 0x63FFFFFF).map(lambda n: far(n % 25_600)),
        st.integers(0, 2**64 - 1).map(lambda n: f"2a00:{n & 0xFFFF or 1:x}::1"),
    ),
    st.integers(1, 65535),
    st.none() | st.binary(min_size=32, max_size=32),
    st.integers(0, 2**63 - 1),
    st.integers(0, 2**63 - 1),
    st.integers(0, 2**31 - 1),
    st.booleans(),
    st.lists(
        st.text(st.characters(min_codepoint=32, max_codepoint=126), min_size=1, max_size=64),
        max_size=4,
        unique=True,
    ).map(tuple),
)


@given(
    st.binary(min_size=32, max_size=32),
    st.lists(ADDRESSES, max_size=8, unique_by=lambda a: (a.host, a.port)),
)
@settings(max_examples=50)
def test_what_is_encoded_is_decoded(key: bytes, addresses: list[SavedAddress]) -> None:
    assert decode_book(encode_book(key, addresses)) == (key, addresses)


def test_a_file_that_ends_too_soon_is_refused() -> None:
    for end in range(len(TEXT)):
        with pytest.raises(StorageError):
            decode_book(TEXT[:end])
    for more in (b"\n", b"x", b"[]\n", TEXT):
        with pytest.raises(StorageError):
            decode_book(TEXT + more)


@given(st.integers(0, len(TEXT) - 1), st.binary(min_size=1, max_size=8))
@settings(max_examples=300)
def test_a_file_that_was_damaged_is_refused_or_a_book(at: int, noise: bytes) -> None:
    damaged = TEXT[:at] + noise + TEXT[at + len(noise) :]
    try:
        key, addresses = decode_book(damaged)
    except StorageError:
        return
    assert decode_book(encode_book(key, addresses)) == (key, addresses)


@given(st.binary(max_size=2048))
def test_any_bytes_are_refused_by_one_error(data: bytes) -> None:
    with pytest.raises(StorageError):
        decode_book(data)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=9)
        | st.dictionaries(st.sampled_from(["format", "version", "key", "addresses"]), inner)
    ),
    max_leaves=12,
)


@given(JSON, st.integers(0, 7), st.booleans())
def test_any_values_are_refused_or_a_book(value: Any, field: int, head: bool) -> None:
    lines: list[Any] = [json.loads(line) for line in TEXT.splitlines()]
    if head:
        lines[0][["format", "version", "key", "addresses"][field % 4]] = value
    else:
        lines[1][field] = value
    try:
        key, addresses = decode_book("".join(json.dumps(n) + "\n" for n in lines).encode())
    except StorageError:
        return
    assert decode_book(encode_book(key, addresses)) == (key, addresses)


def line(**changes: Any) -> bytes:
    return encode_book(KEY, [TRIED._replace(**changes)])


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "0 addresses of 0"),
        (b"[" * 511 + b"\n", "line 1"),
        (b"[" * 600, "has no end"),
        (b"x" * (ADDRESS_FILE_CAP + 1), "larger than"),
        (TEXT.replace(b'"version": 1', b'"version": 2'), "version is not 1"),
        (TEXT.replace(b'"version": 1', b'"version": true'), "version is not 1"),
        (TEXT.replace(b"moderntensor", b"another"), "no address book"),
        (TEXT.replace(b'"addresses": 2', b'"addresses": 3'), "2 addresses of 3"),
        (TEXT.replace(b'"addresses": 2', b'"addresses": 1e1'), "a number"),
        (encode_book(KEY, [TRIED, TRIED]), "there already"),
        (encode_book(b"", [TRIED]), "has no key"),
        (encode_book(b"short", [TRIED]), "64 hex digits"),
        (line(host="name.example"), "this host"),
        (line(host="192.0.2.1"), "this host"),
        (line(host="::ffff:8.8.8.8"), "spelled"),
        (line(host="2A00::1"), "spelled"),
        (line(host="fe80::1%eth0"), "spelled"),
        (line(host=8), "this host"),
        (line(port=0), "from 1 to 65535"),
        (line(port=65536), "from 1 to 65535"),
        (line(port=True), "from 1 to 65535"),
        (line(port=1.0), "from 1 to 65535"),
        (line(last_seen=-1), "a number"),
        (line(last_seen=2**63), "a number"),
        (line(last_success=None), "a number"),
        (line(failures=2**31), "a number"),
        (line(met=1), "true or false"),
        (line(sources=("a", "b", "c", "d", "e")), "no list of groups"),
        (line(sources=("a", "a")), "twice"),
        (line(sources=("",)), "no group"),
        (line(sources=("x" * 65,)), "no group"),
        (line(sources=("é",)), "no group"),
        (line(sources=(1,)), "no group"),
        (line(node_id=b"short"), "64 hex digits"),
    ],
)
def test_every_field_is_checked(data: bytes, why: str) -> None:
    with pytest.raises(StorageError, match=why):
        decode_book(data)


def test_no_more_addresses_than_there_are_places() -> None:
    for sources, limit in (((), TRIED_BUCKETS), (("v4:0808",), NEW_BUCKETS)):
        many = limit * ADDRESS_BUCKET_SIZE
        book = [
            TRIED._replace(host=far(n), port=1 + n // 25_600, sources=sources)
            for n in range(many + 1)
        ]
        with pytest.raises(StorageError, match="too many"):
            decode_book(encode_book(KEY, book))
    longest = SavedAddress(
        "2a00:1111:2222:3333:4444:5555:6666:7777",
        65535,
        SOMEONE,
        2**63 - 1,
        2**63 - 1,
        2**31 - 1,
        False,
        tuple(digit * 64 for digit in "abcd"),
    )
    assert decode_book(encode_book(KEY, [longest])) == (KEY, [longest])


# --- a book and its file ---------------------------------------------------------------------


async def test_a_book_comes_back_as_it_was(tmp_path: Path) -> None:
    book, clock = make_book(directory=tmp_path)
    await book.load()
    for number in range(2000):
        clock.now += 10.0
        book.learn(far(number), 1, SOMEONE, int(clock.now), far(number % 50 + 5000))
        book.learn(far(number % 50), 1, SOMEONE, int(clock.now), far(number))
    for number in range(0, 400, 2):
        book.succeeded(far(number), 1, SOMEONE, far(number))
        book.failed(far(number + 1), 1)
    book.met("30.0.0.1", 9, SOMEONE)
    await book.save()
    clock.close()
    again, other = make_book(seed=7, directory=tmp_path)
    await again.load()
    assert again.counts == book.counts
    assert again.counts["tried"] > 150
    fields = ["host", "port", "node_id", "last_seen", "last_success", "met", "tried", "failures"]
    for key, entry in book._places.entries.items():
        back = again._places.entries[key]
        assert set(back.sources) == set(entry.sources)
        assert [getattr(back, name) for name in fields] == [getattr(entry, name) for name in fields]
        places = [(b._places.tried.place(e)) for b, e in ((book, entry), (again, back))]
        assert places[0] == places[1]
    assert again._places.met.keys() == book._places.met.keys()
    assert again.due(other.now, 8, wanted=anyone)
    other.close()


async def test_only_what_has_changed_is_written(tmp_path: Path) -> None:
    book, clock = make_book(directory=tmp_path)
    path = tmp_path / ADDRESS_FILE
    await book.save()
    assert not path.exists()
    book.learn("8.8.8.8", 1, SOMEONE, 0, "9.9.9.9")
    await book.save()
    path.unlink()
    await book.save()
    assert not path.exists()
    book.failed("8.8.8.8", 1)
    await book.save()
    assert path.exists()
    clock.close()


async def test_a_damaged_file_is_set_aside(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / ADDRESS_FILE
    path.write_bytes(TEXT[:-5])
    book, clock = make_book(directory=tmp_path)
    book.learn("8.8.4.4", 1, SOMEONE, 0, "9.9.9.9")
    with caplog.at_level(logging.WARNING):
        await book.load()
    assert "set aside" in caplog.text
    assert path.with_name(ADDRESS_FILE + ".bad").read_bytes() == TEXT[:-5]
    assert ("8.8.4.4", 1) in book
    await book.save()
    assert len(decode_book(path.read_bytes())[1]) == 1
    clock.close()


async def test_what_was_learned_before_the_file_was_read_counts_too(tmp_path: Path) -> None:
    (tmp_path / ADDRESS_FILE).write_bytes(TEXT)
    book, clock = make_book(directory=tmp_path)
    book.add_bootstrap("2a00::1", 1)
    book.learn("30.0.0.1", 1, SOMEONE, 0, "9.9.9.9")
    book.is_own("8.8.8.8", 30303)
    await book.load()
    await book.load()
    assert book.counts == {"bootstrap": 1, "new": 1, "tried": 0, "met": 0}
    clock.close()


async def test_a_bootstrap_node_that_was_reached_stays_known(tmp_path: Path) -> None:
    book, clock = make_book(directory=tmp_path)
    for host in ("8.8.8.8", "8.8.4.4", "boot.example"):
        book.add_bootstrap(host, 1)
    book.succeeded("8.8.8.8", 1, SOMEONE, "8.8.8.8")
    book.succeeded("boot.example", 1, SOMEONE, "20.0.0.1")
    await book.save()
    again, other = make_book(directory=tmp_path)
    await again.load()
    assert list(again._places.entries) == [("8.8.8.8", 1)]
    assert again.counts["tried"] == 1
    clock.close()
    other.close()


async def test_what_cannot_be_written_is_no_end(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    book, clock = make_book(directory=tmp_path / "gone")
    await book.load()
    book.learn("8.8.8.8", 1, SOMEONE, 0, "9.9.9.9")
    with caplog.at_level(logging.WARNING):
        await book.save()
    assert "was not saved" in caplog.text
    (tmp_path / "gone").mkdir()
    await book.save()
    assert (tmp_path / "gone" / ADDRESS_FILE).exists()
    clock.close()


_SAVER = """
import asyncio, sys
from pathlib import Path
from moderntensor.config import NodeConfig
from moderntensor.network.addressbook import AddressBook
from moderntensor.runtime import Runtime

async def main():
    book = AddressBook(NodeConfig(), Runtime(1), b"me" * 16, Path(sys.argv[1]))
    print("saving", flush=True)
    for number in range(10**9):
        host = f"{number >> 8 & 63 | 64}.{number & 255}.1.1"
        book.met(host, 1, b"x" * 32)
        await book.save()

asyncio.run(main())
"""


def test_a_node_that_is_killed_while_it_saves_leaves_a_whole_book(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", _SAVER, str(tmp_path)], stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"saving\n"
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.3)
        process.send_signal(signal.SIGKILL)
    _, addresses = decode_book((tmp_path / ADDRESS_FILE).read_bytes())
    assert len(addresses) > 1
