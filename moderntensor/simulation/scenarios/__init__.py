"""The scenarios of the package; importing this registers them in `simulation.scenario.ALL`."""

from . import chaos, leave, partition, propagation, skew

__all__ = ["chaos", "leave", "partition", "propagation", "skew"]
