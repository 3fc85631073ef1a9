"""A network in a box: real nodes, by the hundred, in virtual time and an in-memory network.

    from moderntensor.simulation import Link, World

    async def main(world: World) -> None:
        hosts = [world.add_host(validator=key) for key in keys]
        await world.start(hosts)
        await asyncio.sleep(60)  # simulated seconds

    World(seed=7, config=config, link=Link(0.05)).run(main)

The same seed gives the same run, event by event. `run_scenario` runs those that come with the
package; the decorator that registers another is in `simulation.scenario`. The names are loaded
when they are first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .checks import Checks
    from .disk import SimDisk
    from .faults import Faults
    from .host import Host
    from .lines import Line, Link
    from .loop import VirtualLoop
    from .network import SimNetwork
    from .result import ScenarioResult
    from .runtime import Delays, SimRuntime
    from .scenario import run_scenario
    from .trace import Trace
    from .workload import Workload
    from .world import World

__all__ = [
    "Checks",
    "Delays",
    "Faults",
    "Host",
    "Line",
    "Link",
    "ScenarioResult",
    "SimDisk",
    "SimNetwork",
    "SimRuntime",
    "Trace",
    "VirtualLoop",
    "Workload",
    "World",
    "run_scenario",
]

_HOMES = {
    "Checks": "checks",
    "Delays": "runtime",
    "Faults": "faults",
    "Host": "host",
    "Line": "lines",
    "Link": "lines",
    "ScenarioResult": "result",
    "SimDisk": "disk",
    "SimNetwork": "network",
    "SimRuntime": "runtime",
    "Trace": "trace",
    "VirtualLoop": "loop",
    "Workload": "workload",
    "World": "world",
    "run_scenario": "scenario",
}


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(import_module(f".{home}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
