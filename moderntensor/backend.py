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

__all__ = ["NAME", "framing", "headers", "layout", "merkle", "signatures"]


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
