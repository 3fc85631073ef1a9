"""Our end in a process whose counters of traffic do nothing: what they cost is the difference."""

from __future__ import annotations

from typing import Any

from moderntensor.network.latencies import Latencies
from moderntensor.network.traffic import Flow

from .ours import OurEnd


def _nothing(*_: object) -> None:
    pass


class UncountedEnd(OurEnd):
    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        for name in ("add", "add_frames", "add_parts"):
            setattr(Flow, name, _nothing)
        setattr(Latencies, "observe", _nothing)  # noqa: B010 - a method, on purpose
