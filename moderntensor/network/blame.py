"""Whose fault it is when something breaks a rule of the chain."""

from __future__ import annotations

from ..errors import (
    FinalityError,
    HeaderChainError,
    InvalidBlockError,
    UnknownParentError,
    ValidationError,
)
from .offences import Offence

__all__ = ["is_late", "offence_of_rule"]


def offence_of_rule(error: ValidationError) -> Offence | None:
    """What a peer did that sent a header or a block which was refused with `error`; None where it
    is not to blame (a parent that we do not know, a clock that is behind)."""
    match error:
        case UnknownParentError() | HeaderChainError(rule="future"):
            return None
        case FinalityError() | HeaderChainError(rule="checkpoint"):
            return Offence.FORKS_TOO_DEEP
        case HeaderChainError(rule="signature"):
            return Offence.BAD_SIGNATURE
        case HeaderChainError():
            return Offence.BAD_HEADER
        case InvalidBlockError(body_only=True):
            return Offence.BAD_BODY
        case _:
            return Offence.BAD_BLOCK


def is_late(error: ValidationError, height: int, head: int) -> bool:
    """Whether a block of this height was refused because its branch leaves our chain too far down,
    while ours, which ends at `head`, is not shorter: who tells of it may follow us yet, and has
    only not heard of what made us leave."""
    return isinstance(error, FinalityError) and error.__cause__ is None and height <= head
