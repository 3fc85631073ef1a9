"""Comparing the twins: what a call gives or raises, in a form that can be compared."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def outcome(call: Callable[..., Any], *args: Any, **kwargs: Any) -> tuple[str, Any]:
    """("value", what it returned) or (name of the exception's type, its text)."""
    try:
        return "value", call(*args, **kwargs)
    except Exception as error:  # the kind of error is what is being compared
        return type(error).__name__, str(error)
