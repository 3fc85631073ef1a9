"""Serving headers from the store, against bare `lmdb`."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import lmdb

from moderntensor.blockchain import tables
from moderntensor.blockchain.chain import Blockchain
from moderntensor.blockchain.state import StateDB
from moderntensor.blockchain.validation import BlockValidator
from moderntensor.blockchain.workload import build_chain, demo_config, demo_keys
from moderntensor.network.messages import GetHeadersMessage, HeadersMessage, MessageCodec
from moderntensor.network.serving import headers_frame

from ..case import OURS, Case, Mark, Scale
from ..timing import calls

TITLE = "Serving from the store"

HEADERS = 2000  # of one reply; 2,048 is the protocol's most
MAP_SIZE = 1 << 30
BARE = "bare lmdb"


def cases(scale: Scale) -> Iterator[Case]:
    """One reply of 2,000 headers, from the request to the frame, over and over."""
    blocks = scale.pick(20_000, 4000)
    with (
        tempfile.TemporaryDirectory() as name,
        StateDB(Path(name) / "chain", map_size=MAP_SIZE) as state_db,
    ):
        validators = demo_keys(3, "validator")
        chain = BlockValidator(state_db, demo_config([], validators)).chain
        for _ in build_chain(chain, validators=validators, blocks=blocks):
            pass
        with _bare_copy(Path(name) / "bare", chain) as env:
            yield _serving(scale, chain, env, env.open_db(tables.CANONICAL.encode()))


def _bare_copy(path: Path, chain: Blockchain) -> lmdb.Environment:
    """The same headers under the same keys in an environment of their own."""
    env = lmdb.open(str(path), map_size=MAP_SIZE, max_dbs=1)
    database = env.open_db(tables.CANONICAL.encode())
    with chain.store.read() as source, env.begin(write=True) as txn:
        for key, value in source.range(tables.CANONICAL):
            txn.put(key, value, append=True, db=database)
    return env


def bare_range(env: lmdb.Environment, database: object, start: int, count: int) -> bytes:
    """The quickest way that the binding offers to so many values in a row, joined."""
    with env.begin() as txn, txn.cursor(database) as cursor:
        cursor.set_range(tables.height_key(start))
        return b"".join(islice(cursor.iternext(keys=False), count))


def _serving(scale: Scale, chain: Blockchain, env: lmdb.Environment, database: object) -> Case:
    start = chain.head.height - HEADERS
    request = GetHeadersMessage(request_id=1, start_height=start, max_headers=HEADERS)

    seconds = scale.pick(0.2, 0.05)

    def check() -> None:
        reply = MessageCodec.decode(headers_frame(chain, request))
        assert isinstance(reply, HeadersMessage)
        assert reply.count == HEADERS
        assert reply.headers[2:] == bare_range(env, database, start, HEADERS)

    return Case(
        "a reply of 2,000 headers",
        "headers/s",
        (
            calls(scale, OURS, headers_frame, chain, request, units=HEADERS, seconds=seconds),
            calls(
                scale,
                BARE,
                bare_range,
                env,
                database,
                start,
                HEADERS,
                units=HEADERS,
                seconds=seconds,
                differs="reads and joins the values alone: no reply, no check that the chain "
                "stayed the same meanwhile, no frame",
            ),
        ),
        (Mark(0.8, (BARE,), percent=True),),
        check,
        rounds=scale.pick(15, 5),
    )
