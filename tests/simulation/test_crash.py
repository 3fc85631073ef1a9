"""Killing the process of a simulated node: what was committed stays, all else is gone."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace

import pytest
from helpers.simulated import BLOCK_TIME, USERS, VALIDATORS, add_hosts, agree, make_world, simulate

from moderntensor.blockchain.block import BlockHeader
from moderntensor.blockchain.chain import Blockchain
from moderntensor.blockchain.crypto import KeyPair
from moderntensor.blockchain.tables import TABLES
from moderntensor.blockchain.workload import build_chain, demo_config
from moderntensor.errors import StorageError
from moderntensor.simulation import Delays, World
from moderntensor.simulation.host import of_the_living
from moderntensor.simulation.world import EPOCH
from moderntensor.storage import MemoryStore


def test_what_was_committed_is_there_after_a_crash() -> None:
    async def main(world: World) -> None:
        hosts = add_hosts(world, 4)
        await world.start()
        await agree(hosts, 4)
        last = hosts[-1]
        assert last.node is not None
        head = last.node.chain.head
        await last.crash()
        assert not last.up
        await asyncio.sleep(30)
        last.bootstrap = ()  # it has anchors and an address book
        await last.restart()
        assert last.node is not None
        assert last.node.chain.head == head
        await agree(hosts, head.height + 5)
        assert last.lives == 2

    simulate(main)


@pytest.mark.parametrize("silent", [False, True])
def test_nothing_that_a_dead_process_does_has_an_effect(silent: bool) -> None:
    """Its clean-up code runs into the void: disk, network, log, trace."""
    ran: list[str] = []

    async def main(world: World) -> None:
        hosts = add_hosts(world, 3)
        await world.start()
        await agree(hosts, 2)
        host = hosts[2]
        node, runtime = host.node, host.runtime
        assert node is not None
        file = host.mount.file("late")

        async def stubborn() -> None:
            try:
                await asyncio.sleep(1e6)
            finally:
                ran.append("cleaning up")
                logging.getLogger("moderntensor.late").error("of the dead")
                with pytest.raises(StorageError):
                    file.write(b"late")
                with pytest.raises(StorageError):
                    node.chain.store.write()
                for peer in node.p2p.peers.values():
                    peer.disconnect(0, "late")
                await runtime.run_writer(ran.append, "written late")

        work = asyncio.create_task(host.within(stubborn()))
        await asyncio.sleep(1)
        said = world.network.hosts[host.ip].segments_out
        lines = len(world.trace.text.splitlines())
        now = world.now
        await host.crash(silent=silent)
        assert world.now == now
        assert work.done() or work.cancelling() or await _ended(work)
        told = world.trace.text.splitlines()[lines:]
        assert told[0].endswith("crash n2 silent" if silent else "crash n2 killed")
        assert not [line for line in told if " n2" in line][1:]
        await asyncio.sleep(60)
        assert "late" not in host.disk.files
        assert world.network.hosts[host.ip].segments_out <= said + (0 if silent else 8)
        assert not [
            peer for h in hosts[:2] if h.node for peer in h.node.p2p.peers if host.ip in peer
        ]

    errors: list[str] = []
    handler = logging.Handler(logging.ERROR)
    handler.emit = lambda record: errors.append(record.getMessage())  # type: ignore[method-assign]
    handler.addFilter(of_the_living)
    logging.getLogger("moderntensor").addHandler(handler)
    try:
        make_world(record=True).run(main)
    finally:
        logging.getLogger("moderntensor").removeHandler(handler)
    assert ran == ["cleaning up"]
    assert not errors


async def _ended(work: asyncio.Task[None]) -> bool:
    with pytest.raises(asyncio.CancelledError):
        await work
    return True


def test_work_under_way_is_lost_or_done_and_never_told() -> None:
    done: list[int] = []
    told: list[int] = []

    async def main(world: World) -> None:
        host = world.add_host()

        async def work(number: int) -> None:
            await host.runtime.run_writer(done.append, number)
            told.append(number)

        for number in range(40):
            await host.start()
            task = asyncio.create_task(host.within(work(number)))
            await asyncio.sleep(0.005)
            await host.crash()
            await _ended(task)

    simulate(main, delays=Delays(0.01, 0.01))
    assert not told
    assert 5 < len(done) < 35


def test_no_slot_is_signed_twice_whenever_the_producer_dies(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    signed: dict[tuple[bytes, int], set[bytes]] = {}
    sign = BlockHeader.sign

    def noted(header: BlockHeader, key: KeyPair) -> BlockHeader:
        made = sign(header, key)
        slot = made.timestamp // world.config.block_time
        signed.setdefault((made.validator, slot), set()).add(made.hash)
        return made

    monkeypatch.setattr(BlockHeader, "sign", noted)
    world = make_world(3, delays=Delays(0.05, 0.5))  # a slow disk: many die while they make a block

    async def main(world: World) -> None:
        hosts = add_hosts(world, 3)
        await world.start()
        for _ in range(30):
            await asyncio.sleep(world.random.uniform(0.2, 3))
            host = world.random.choice(hosts[:2])
            await host.crash()
            await host.restart()
        await agree(hosts, 6)
        for host in hosts:
            assert host.node is not None
            assert not host.node.chain.evidence()

    world.run(main)
    assert len(signed) > 10
    assert all(len(hashes) == 1 for hashes in signed.values())


def test_power_that_is_gone_is_noticed_by_silence_alone() -> None:
    async def main(world: World) -> None:
        hosts = add_hosts(world, 3)
        await world.start()
        await agree(hosts, 2)
        node = hosts[0].node
        assert node is not None
        for silent, least, most in ((False, 0, 1), (True, 5, 60)):
            gone = asyncio.Event()
            node.p2p.on_peer_disconnected.append(lambda _, gone=gone: gone.set())
            await asyncio.sleep(60)  # it may not be admitted again at once
            assert any(hosts[2].ip in address for address in node.p2p.peers)
            gone.clear()
            began = world.now
            await hosts[2].crash(silent=silent)
            await gone.wait()
            assert least <= world.now - began <= most
            await hosts[2].restart()

    simulate(main)


def test_a_node_may_die_while_it_starts_and_while_it_stops() -> None:
    async def main(world: World) -> None:
        hosts = add_hosts(world, 3)
        await world.start(hosts[:2])
        await agree(hosts[:2], 2)
        for delay in (0.0, 0.001, 0.01, 0.05, 0.2):
            starting = asyncio.create_task(hosts[2].start())
            await asyncio.sleep(delay)
            await hosts[2].crash()
            await starting
        await hosts[2].start()
        await agree(hosts, 4)
        for delay in (0.0, 0.0001, 0.001):
            stopping = asyncio.create_task(hosts[2].stop())
            await asyncio.sleep(delay)
            await hosts[2].crash()
            await asyncio.wait([stopping])
            assert stopping.cancelled() or stopping.exception() is None
            await hosts[2].start()
        await agree(hosts, 6)

    simulate(main, delays=Delays(0.001, 0.02))


def test_a_snapshot_is_made_again_after_a_crash() -> None:
    config = demo_config([], VALIDATORS[:1], timestamp=int(EPOCH), block_time=1)
    world = World(1, config=replace(config, snapshot_interval=8))

    async def main(world: World) -> None:
        host = world.add_host(validator=VALIDATORS[0])
        await host.start()
        await asyncio.sleep(12)
        assert host.node is not None
        assert host.node.snapshots is not None
        announced = host.node.snapshots.announced
        assert [height for height, _ in announced] == [8]
        await host.crash()
        await host.restart()
        await asyncio.sleep(1)
        assert host.node.snapshots.announced == announced

    world.run(main)


def test_a_chain_may_be_on_a_disk_before_the_first_start() -> None:
    config = demo_config(USERS, VALIDATORS, timestamp=int(EPOCH) - 400, block_time=BLOCK_TIME)
    chain = Blockchain(MemoryStore(TABLES), config)
    for _ in build_chain(chain, validators=VALIDATORS, accounts=USERS, blocks=20):
        pass

    async def main(world: World) -> None:
        server, client = world.add_host(), world.add_host(bootstrap=["11.0.0.1:30303"])
        server.disk.put(chain.store)
        await world.start()
        await agree([server, client], 20)

    World(1, config=config).run(main)
