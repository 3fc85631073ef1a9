"""The only switch between the compiled engines and their pure-Python twins.

All engines come from the same side, never a mix. `MODERNTENSOR_PURE=1` in the environment asks
for the pure ones; a wheel built with `MODERNTENSOR_BUILD_PURE=1` carries a marker module and is
pure on purpose. Otherwise the compiled ones must be there: a tree that was not built says so
instead of running slowly in silence.
"""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

from .errors import EnginesMissingError

__all__ = [
    "NAME",
    "force_sha256",
    "framing",
    "headers",
    "layout",
    "merkle",
    "sha256_implementation",
    "sha256_implementations",
    "signatures",
]


def _wants_pure() -> bool:
    if os.environ.get("MODERNTENSOR_PURE", "") not in ("", "0"):
        return True
    return importlib.util.find_spec("moderntensor._pure._marker") is not None


NAME: Final[str] = "pure" if _wants_pure() else "compiled"

if TYPE_CHECKING or NAME == "pure":
    from ._pure import framing, headers, layout, merkle, signatures
else:
    try:
        from ._ext import framing, headers, layout, merkle, signatures  # type: ignore[no-redef]
    except ImportError as error:
        raise EnginesMissingError(
            f"the compiled engines of moderntensor are missing in {Path(__file__).parent} "
            f"({error}). In a checkout `pip install -e .` builds them (a C compiler is needed); "
            "after `pip install .` run Python elsewhere than in the checkout, whose own package "
            "would hide the installed one. MODERNTENSOR_PURE=1 asks for the slower pure-Python "
            "engines."
        ) from error

# The pure engines share `hashlib`; each compiled one has its own copy of the choice.
_HASHING: Final = (headers,) if NAME == "pure" else (headers, merkle)


def sha256_implementation() -> str:
    """The SHA-256 in use, for the log and for those who measure.

    ``"avx512"`` (16 messages at once), ``"sha-ni"`` (x86, two at once), ``"avx2"`` (eight at
    once, one by one in portable C), ``"armv8"`` or ``"portable"``; ``"hashlib"`` when pure.
    """
    return headers.sha256_implementation()


def sha256_implementations() -> tuple[str, ...]:
    """Every SHA-256 that works on this machine, best first; the best is in use unless forced."""
    return headers.sha256_implementations()


def force_sha256(name: str | None) -> None:
    """Let all engines hash with the named implementation, for tests and measurements.

    None: with the best one again. ValueError if it does not work on this machine. Not while
    other threads hash.
    """
    for engine in _HASHING:
        engine._force_sha256(name)
