"""The scenarios of the package; importing this registers them in `simulation.scenario.ALL`."""

from . import bound, chaos, leave, partition, propagation, skew

__all__ = ["bound", "chaos", "leave", "partition", "propagation", "skew"]
