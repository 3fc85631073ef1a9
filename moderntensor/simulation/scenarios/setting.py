"""Where scenarios begin: a chain of its own for every seed, and a network that grew by chance."""

from __future__ import annotations

from collections.abc import Sequence

from ...blockchain.crypto import KeyPair
from ...blockchain.workload import demo_config, demo_keys
from ...errors import ConfigError
from ..host import Host
from ..lines import Line, Link
from ..world import World

__all__ = ["draw_link", "draw_transport", "make_chain", "make_hosts"]


def make_chain(
    world: World,
    *,
    validators: int,
    accounts: int = 12,
    block_time: int = 6,
    max_reorg: int = 128,
    missed: int = 0,
    anybody: bool = False,
) -> tuple[list[KeyPair], list[KeyPair]]:
    """Give `world` a chain that begins now, or so many slots ago, all of which were missed; the
    keys of its validators and of funded accounts. Where `anybody` may sign there need be none.
    ConfigError without a validator else, or without time between blocks."""
    if validators < (not anybody) or block_time < 1:
        raise ConfigError(f"{validators} validators make no block in {block_time} s")
    keys, users = demo_keys(validators, "validator"), demo_keys(accounts)
    world.config = demo_config(
        users,
        keys,
        timestamp=int(world.wall_time()) - missed * block_time,
        block_time=block_time,
        max_reorg_depth=max_reorg,
    )
    return keys, users


def draw_link(world: World) -> Link:
    """From a data centre's to a bad intercontinental one's."""
    random = world.random
    latency = random.choice((0.005, 0.02, 0.05, 0.1, 0.2)) * random.uniform(0.7, 1.4)
    return Link(latency, jitter=latency * random.uniform(0, 0.4), loss=random.choice((0, 0, 0.01)))


def draw_transport(world: World) -> str:
    """Seldom the secure one, which costs a simulation a third of its time."""
    return world.random.choice(("plaintext", "plaintext", "plaintext", "secure"))


def make_hosts(
    world: World,
    count: int,
    keys: Sequence[KeyPair] = (),
    *,
    line: Line | None = None,
    **settings: bool | int | float | str,
) -> list[Host]:
    """`count` hosts, some of which, drawn, hold the validators' `keys`. Each knows one to three of
    those before it, as nodes of a network that grew do, and finds the others through them.

    ConfigError for fewer hosts than keys, or none.
    """
    random = world.random
    if count < max(1, len(keys)):
        raise ConfigError(f"{count} nodes cannot hold the keys of {len(keys)} validators, one each")
    producers = dict(zip(random.sample(range(count), len(keys)), keys, strict=True))
    hosts: list[Host] = []
    for number in range(count):
        known = random.sample(hosts, min(len(hosts), random.randint(1, 3)))
        hosts.append(
            world.add_host(
                validator=producers.get(number), bootstrap=known, line=line, settings=settings
            )
        )
    return hosts
