"""The engines under test: the pure twin, the compiled one as its oracle, or the latter alone."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from moderntensor._ext import framing as _framing
from moderntensor._ext import headers as _headers
from moderntensor._ext import layout as _layout
from moderntensor._ext import merkle as _merkle
from moderntensor._ext import signatures as _signatures
from moderntensor._pure import framing, headers, layout, merkle, signatures
from moderntensor.errors import ModernTensorError

Engines = SimpleNamespace
Outcome = tuple[str, Any]

PURE = Engines(
    name="pure", framing=framing, headers=headers, layout=layout, merkle=merkle,
    signatures=signatures,
)  # fmt: skip
COMPILED = Engines(
    name="compiled", framing=_framing, headers=_headers, layout=_layout, merkle=_merkle,
    signatures=_signatures,
)  # fmt: skip

_under_test: list[Engines] = [PURE, COMPILED]


def drop_the_pure_twin() -> None:
    """Leave the pure twin out: several times as many executions, for the sanitizers to watch."""
    _under_test[:] = [COMPILED]


class TwinsDisagreeError(AssertionError):
    """A finding: the same input has two outcomes."""


def outcome(action: Callable[[], Any], *errors: type[Exception]) -> Outcome:
    """("value", what it gave), or type and text of an error that the caller has to expect:
    ours, or one of `errors`. Anything else passes through."""
    try:
        return "value", action()
    except (ModernTensorError, *errors) as error:
        return type(error).__name__, str(error)


def same(action: Callable[[Engines], Any], *errors: type[Exception]) -> Outcome:
    """The one outcome of `action` on the engines under test."""
    found = [outcome(lambda engines=engines: action(engines), *errors) for engines in _under_test]
    if found[0] != found[-1]:
        raise TwinsDisagreeError(f"pure: {found[0]!r}\ncompiled: {found[-1]!r}")
    return found[0]
