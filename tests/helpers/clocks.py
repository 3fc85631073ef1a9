"""A world whose clocks stand still until a test moves them."""

from __future__ import annotations

from moderntensor.runtime import Runtime


class Clocks(Runtime):
    """Durations by `loop`, the wall clock by `wall`; both are set by hand."""

    def __init__(self) -> None:
        super().__init__(1)
        self.loop = 1000.0
        self.wall = 1_700_000_000.0

    def loop_time(self) -> float:
        return self.loop

    def wall_time(self) -> float:
        return self.wall

    def advance(self, seconds: float) -> None:
        """Both clocks, as they should."""
        self.loop += seconds
        self.wall += seconds
