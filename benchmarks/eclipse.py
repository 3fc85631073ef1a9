"""How much of a node's view of the network an attacker gets who tells it his own addresses.

    python -m benchmarks.eclipse [addresses]

No sockets, no chance but that of a seed: the address book of a node that knows an honest network,
and an attacker whose nodes tell it addresses as fast as it takes them. What counts is how many of
the eight outbound peers that the node would choose then are his. The first attacker has one /16;
the others have several, and their addresses answer when they are dialled (feelers find them).
"""

from __future__ import annotations

import random
import sys
from dataclasses import dataclass
from typing import NamedTuple

from moderntensor.config import NodeConfig
from moderntensor.network.addressbook import AddressBook, KnownAddress
from moderntensor.network.addressbook.tables import Table
from moderntensor.network.addresses import netgroup
from moderntensor.network.limits import ADDRESSES_PER_SECOND
from moderntensor.runtime import Runtime

_SOMEONE = b"x" * 32
_HONEST = 4000  # addresses, in as many groups as chance gives them
_TELLERS = 40  # honest nodes that tell of them, each of a hundredth part
_REACHED = 400  # of the honest ones, before the attack
_OUTBOUND = 8
_GROUPS = 50_000  # public /16, nearly


class _World(Runtime):
    """Clocks that are turned, chance from a seed."""

    def __init__(self, seed: int) -> None:
        super().__init__(1)
        self.random = random.Random(seed)
        self.now = 1.7e9

    def loop_time(self) -> float:
        return self.now

    def wall_time(self) -> float:
        return self.now

    def entropy(self, size: int) -> bytes:
        return self.random.randbytes(size)


@dataclass(frozen=True)
class Attack:
    """What the attacker does. Without `anywhere` the addresses that he tells are his own."""

    name: str
    groups: int  # /16 that are his
    addresses: int  # told
    anywhere: bool = False  # he invents addresses all over the network
    reached: int = 0  # of his addresses, that we have found to answer


class Outcome(NamedTuple):
    """Parts of one: of the places among new and tried, of eight choices of whom to dial; and how
    often (of a thousand) he got all eight."""

    new: float
    tried: float
    outbound: float
    all_eight: float


def _address(world: _World, first: int, groups: int) -> str:
    """A random address in one of `groups` /16 from number `first` on."""
    group, host = first + world.random.randrange(groups), world.random.randrange(1, 65535)
    return f"{11 + group // 256}.{group % 256}.{host >> 8}.{host & 255}"


def simulate(attack: Attack, seed: int = 1, trials: int = 1000) -> Outcome:
    """Play one attack against a book that knows the honest network."""
    world = _World(seed)
    book = AddressBook(NodeConfig(), world, b"me" * 16)
    first, honest_groups = 64 * 256, 60 * 256  # 75.0.0.0 onwards; the attacker is below that
    tellers = [_address(world, first, honest_groups) for _ in range(_TELLERS)]
    network = [_address(world, first, honest_groups) for _ in range(_HONEST)]
    for teller in tellers:
        for host in world.random.sample(network, 500):
            world.now += 1.0
            book.learn(host, 30303, _SOMEONE, int(world.now), teller)
    for host in network[:_REACHED]:
        book.succeeded(host, 30303, _SOMEONE, host)
    _play(attack, book, world)
    return _look(book, world, trials)


def _play(attack: Attack, book: AddressBook, world: _World) -> None:
    for number in range(attack.addresses):
        # As fast as each of his groups is listened to.
        world.now += 1.0 / ADDRESSES_PER_SECOND / attack.groups
        place = (0, 124 * 256) if attack.anywhere else (0, attack.groups)
        told = _address(world, *place)
        teller = f"11.{number % attack.groups}.0.1"
        book.learn(told, 6666, _SOMEONE, int(world.now), teller)
    for _ in range(attack.reached):
        host = _address(world, 0, attack.groups)
        book.learn(host, 6666, _SOMEONE, int(world.now), host)
        book.succeeded(host, 6666, _SOMEONE, host)


def _is_his(entry: KnownAddress) -> bool:
    return entry.port == 6666


def _look(book: AddressBook, world: _World, trials: int) -> Outcome:
    world.now += 3600.0

    def part(table: Table) -> float:
        held = [_is_his(entry) for entry in table.draw(world.random)]
        return sum(held) / max(1, len(held))

    new, tried = part(book._places.new), part(book._places.tried)
    chosen, complete = 0, 0
    for _ in range(trials):
        picked = book.due(world.now, _OUTBOUND, wanted=lambda _: True)
        assert len({netgroup(entry.host) for entry in picked}) == len(picked) == _OUTBOUND
        his = sum(map(_is_his, picked))
        chosen += his
        complete += his == _OUTBOUND
    return Outcome(new, tried, chosen / trials / _OUTBOUND, complete / trials)


def attacks(addresses: int) -> list[Attack]:
    """The attacks of the table in docs/security.md."""
    return [
        Attack("invented addresses, told from one /16", 1, addresses, anywhere=True),
        Attack("own addresses of one /16, all answer", 1, addresses, reached=addresses // 10),
        Attack("own addresses of 4 /16, all answer", 4, addresses, reached=addresses // 10),
        Attack("own addresses of 16 /16, all answer", 16, addresses, reached=addresses // 10),
        Attack("own addresses of 64 /16, all answer", 64, addresses, reached=addresses // 10),
    ]


def main() -> None:
    """Print the table."""
    addresses = int(sys.argv[1]) if len(sys.argv) > 1 else 50_000
    print(f"{addresses} addresses told by the attacker; parts that are his\n")
    print("| Attack | new places | tried places | outbound choices | all 8 |")
    print("|---|---|---|---|---|")
    for attack in attacks(addresses):
        out = simulate(attack)
        print(f"| {attack.name} | " + " | ".join(f"{part:.1%}" for part in out) + " |")


if __name__ == "__main__":
    main()
