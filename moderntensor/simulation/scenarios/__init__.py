"""The scenarios of the package; importing this registers them in `simulation.scenario.ALL`."""

from . import (
    bound,
    chaos,
    eclipse,
    fast_hostile,
    forks,
    leave,
    partition,
    propagation,
    skew,
    sync_hostile,
)

__all__ = [
    "bound",
    "chaos",
    "eclipse",
    "fast_hostile",
    "forks",
    "leave",
    "partition",
    "propagation",
    "skew",
    "sync_hostile",
]
