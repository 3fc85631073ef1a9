"""Evidence against validators that signed two headers at one height.

An honest one never does: it signs only above its head, which never gets lower. The two headers
convict it before anybody, signatures included; nothing else follows from them here. On an open
network keys are free, so none is kept there.
"""

from __future__ import annotations

import logging
from typing import Final, NamedTuple

from ..storage import ReadTransaction, Store
from . import tables
from .genesis import ChainConfig
from .lookup import HeaderBatch, height_range, one
from .rules import verify_header_signatures

log = logging.getLogger(__name__)

MAX_EVIDENCE: Final = 1024  # pairs of headers, 600 KiB; the lowest heights are dropped first
MAX_COMPARED: Final = 256  # headers of one batch; twice the default reorganisation depth


class Evidence(NamedTuple):
    """Two encoded headers of one height under one validator's key."""

    first: bytes
    second: bytes


def look(
    txn: ReadTransaction, config: ChainConfig, batch: HeaderBatch, start: int, tip: int
) -> list[Evidence]:
    """What headers `start` on of a batch prove together with known ones, the highest of which
    has height `tip`; their signatures are not checked here."""
    found: list[Evidence] = []
    if not config.validators:
        return found
    for i in range(start, min(len(batch), start + MAX_COMPARED)):
        height = batch.height(i)
        if height > tip:
            break
        for raw in _known_at(txn, height):
            rival = one(raw)
            if rival.validator(0) == batch.validator(i) and rival.hash(0) != batch.hash(i):
                found.append(Evidence(raw, batch.raw(i)))
                break
    return found


def _known_at(txn: ReadTransaction, height: int) -> list[bytes]:
    key = tables.height_key(height)
    line = [txn.get(table, key) for table in (tables.CANONICAL, tables.PENDING)]
    beside = txn.values(tables.SIDE, *height_range(height, height + 1))
    return [raw for raw in line if raw is not None] + beside


def keep(store: Store, found: list[Evidence]) -> None:
    """Note evidence, if its signatures are good: once for each validator and height."""
    if not found:
        return
    with store.write() as txn:
        for pair in found:
            if verify_header_signatures(HeaderBatch.join(pair)) is not None:
                continue  # one that a checkpoint covers, which is no evidence
            batch = one(pair.first)
            height, validator = batch.height(0), batch.validator(0)
            key = tables.height_key(height) + validator
            if txn.get(tables.EVIDENCE, key) is not None:
                continue
            txn.put(tables.EVIDENCE, key, pair.first + pair.second)
            count = txn.count(tables.EVIDENCE)
            log.warning(
                "validator %s signed two blocks of height %d: %s and %s (%d such cases)",
                validator.hex(),
                height,
                batch.hash(0).hex(),
                one(pair.second).hash(0).hex(),
                count,
            )
            if count > MAX_EVIDENCE and (lowest := txn.first(tables.EVIDENCE)) is not None:
                txn.delete(tables.EVIDENCE, lowest[0])


def kept(txn: ReadTransaction) -> list[Evidence]:
    """All that is kept, by height."""
    found = []
    for value in txn.values(tables.EVIDENCE):
        batch = HeaderBatch.from_concatenated(value)
        found.append(Evidence(batch.raw(0), batch.raw(1)))
    return found
