"""What an announced header is worth, before anything is asked for because of it."""

from __future__ import annotations

from enum import Enum, auto

from ...blockchain.block import BlockHeader
from ...blockchain.chain import Blockchain
from ...blockchain.lookup import HeaderBatch
from ...blockchain.rules import verify_header_signatures
from ...errors import HeaderChainError, UnknownParentError
from ...runtime import SignatureMemo

__all__ = ["Verdict", "judge_header"]


class Verdict(Enum):
    """What a header that breaks no rule is."""

    GOOD = auto()
    KNOWN = auto()
    """Of the executed chain."""
    STRAY = auto()
    """On a parent that is not known; the rules that need it are not checked."""
    EARLY = auto()
    """Too far ahead of our clock, which may be slow."""


def judge_header(
    chain: Blockchain, header: BlockHeader, memo: SignatureMemo | None = None
) -> Verdict:
    """Hold a header to every rule that can be told by now, its signature included; for a worker
    thread. `memo` as for `verify_header_signatures`.

    Raises HeaderChainError, FinalityError, and InvalidBlockError for one that is remembered as
    invalid.
    """
    if chain.height_of(header.hash) is not None:
        return Verdict.KNOWN
    verdict = Verdict.GOOD
    batch = HeaderBatch.join([header.encode()])
    try:
        chain.check_headers(batch)
    except UnknownParentError:
        verdict = Verdict.STRAY
    except HeaderChainError as error:
        if error.rule != "future":
            raise
        verdict = Verdict.EARLY
    if verdict is not Verdict.GOOD:
        _check_validator(chain, header)
    if verify_header_signatures(batch, memo=memo) is not None:
        raise HeaderChainError(0, header.height, "signature")
    return verdict


def _check_validator(chain: Blockchain, header: BlockHeader) -> None:
    """Whose turn it is needs no parent: nobody else can make us wait or ask for more."""
    config = chain.config
    slot = config.slot_of(header.timestamp)
    if slot < 1:
        raise HeaderChainError(0, header.height, "slot")
    if config.validator_at(slot) not in (None, header.validator):
        raise HeaderChainError(0, header.height, "validator")
