"""Real nodes in a simulated world: they find each other, agree, stop and come back."""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
import socket

import pytest
from helpers.simulated import BLOCK_TIME, add_hosts, agree, make_world, simulate

import moderntensor.simulation
from moderntensor.errors import ConfigError, ConnectError, SimulationError
from moderntensor.network.resolver import resolve
from moderntensor.simulation import Delays, Host, Trace, World


def test_nodes_connect_produce_follow_and_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object, **__: object) -> None:
        raise AssertionError("a socket of this machine")

    async def main(world: World) -> None:
        hosts = add_hosts(world, 5)
        await world.start(over=2)
        await agree(hosts, 8)
        assert world.now < 11 * BLOCK_TIME
        for host in hosts:
            assert host.node is not None
            assert len(host.node.p2p.peers) >= 2
            assert host.bytes_received > 1000 < host.bytes_sent
        assert abs(world.wall_time() - world.epoch - world.now) < 1e-6

    monkeypatch.setattr(socket, "socket", refused)
    simulate(main)


def test_a_late_node_syncs_and_follows() -> None:
    async def main(world: World) -> None:
        hosts = add_hosts(world, 4)
        await world.start(hosts[:3])
        await agree(hosts[:3], 6)
        await hosts[3].start()
        await agree(hosts, 8)

    simulate(main)


def test_what_was_learned_outlasts_a_stop() -> None:
    """Peers, bans, the key and the chain; nobody is given to it a second time."""

    async def main(world: World) -> None:
        hosts = add_hosts(world, 4)
        await world.start()
        await agree(hosts, 3)
        last = hosts[-1]
        assert last.node is not None
        last.node.p2p.ban(hosts[0].ip, 3600.0)
        before, node_id = last.node.chain.head.height, last.node.p2p.node_id
        await last.stop()
        assert not last.up
        last.bootstrap = ()
        await last.restart()
        assert last.node is not None
        assert last.node.chain.head.height >= before
        assert last.node.p2p.node_id == node_id
        assert [ban.key for ban in last.node.p2p.list_bans()] == [hosts[0].ip]
        await agree(hosts, 5)
        assert hosts[0].address not in last.node.p2p.peers

    simulate(main)


def test_clocks_are_wrong_as_told() -> None:
    async def main(world: World) -> None:
        host = world.add_host()
        host.skew, host.drift = 10.0, 0.5
        await asyncio.sleep(4)
        assert host.wall_time() - world.wall_time() == pytest.approx(12)
        host.drift = 0.0
        await asyncio.sleep(4)
        assert host.skew == pytest.approx(12)
        host.skew = host.drift = 0.0
        assert host.wall_time() == world.wall_time()

    simulate(main)


def test_work_takes_its_time_and_writers_queue() -> None:
    async def main(world: World) -> None:
        host = world.add_host()
        await host.start()
        done: list[int] = []
        began = world.now
        await asyncio.gather(
            *(host.within(host.runtime.run_writer(done.append, n)) for n in range(10))
        )
        assert done == list(range(10))
        assert 0.0999 < world.now - began < 0.2001
        with pytest.raises(ZeroDivisionError):
            await host.runtime.run(divmod, 1, 0)
        with pytest.raises(ConnectError):
            await resolve(host.runtime, "seed.example", 1)
        assert len(host.runtime.entropy(100)) == 100

    simulate(main, delays=Delays(0.01, 0.02))


def test_what_main_raises_comes_out_and_all_is_stopped() -> None:
    hosts: list[Host] = []

    async def main(world: World) -> None:
        hosts.extend(add_hosts(world, 3))
        await world.start()
        raise LookupError("of the scenario")

    before = gc.get_threshold()
    with pytest.raises(LookupError):
        simulate(main)
    assert gc.get_threshold() == before
    assert not any(host.up for host in hosts)


def test_an_interrupt_comes_out_and_hits_no_node(caplog: pytest.LogCaptureFixture) -> None:
    reached = []

    async def main(world: World) -> None:
        add_hosts(world, 3)
        await world.start()
        for step in ("asked", "never"):
            signal.raise_signal(signal.SIGINT)
            reached.append(step)  # whose callback it is goes on
            await asyncio.sleep(60)

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        simulate(main)
    assert reached == ["asked"]
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert signal.getsignal(signal.SIGINT) is before


def test_what_is_left_running_is_a_failure() -> None:
    async def main(_: World) -> None:
        kept.append(asyncio.create_task(asyncio.sleep(1e6), name="forgotten"))

    kept: list[asyncio.Task[None]] = []
    with pytest.raises(SimulationError, match="forgotten"):
        simulate(main)


def test_what_a_callback_raises_is_a_failure() -> None:
    async def main(_: World) -> None:
        asyncio.get_running_loop().call_later(1, divmod, 1, 0)
        await asyncio.sleep(2)

    with pytest.raises(SimulationError, match="ZeroDivisionError"):
        simulate(main)


def test_a_node_that_stops_with_tasks_left_is_a_failure() -> None:
    async def main(world: World) -> None:
        host = world.add_host()
        await host.start()
        work = asyncio.create_task(host.within(asyncio.sleep(1e6), "stays"))
        await asyncio.sleep(1)
        with pytest.raises(SimulationError, match="stays"):
            await host.stop()
        with pytest.raises(asyncio.CancelledError):
            await work

    simulate(main)


def test_a_node_that_stops_with_timers_left_is_a_failure() -> None:
    async def main(world: World) -> None:
        host = world.add_host()
        await host.start()

        async def forget() -> None:
            asyncio.get_running_loop().call_later(1e6, print, "late")

        await host.within(forget())
        with pytest.raises(SimulationError, match=r"left .*print"):
            await host.stop()

    simulate(main)


def test_mistakes_are_told() -> None:
    empty = World(1)
    with pytest.raises(ConfigError, match="no chain"):
        _ = empty.config
    empty.close()
    empty.close()
    world = make_world()
    world.add_host("a", ip="8.8.8.8")
    with pytest.raises(SimulationError, match="a already"):
        world.add_host("a")
    with pytest.raises(ValueError, match=r"8\.8\.8\.8"):
        world.add_host("b", ip="8.8.8.8")
    with pytest.raises(SimulationError, match="no host c"):
        world.host("c")
    with pytest.raises(SimulationError, match="never been started"):
        _ = world.host("a").runtime

    async def main(world: World) -> None:
        host = world.host("a")
        await host.start()
        with pytest.raises(SimulationError, match="runs already"):
            await host.start()

    world.run(main)
    with pytest.raises(SimulationError, match="runs once"):
        world.run(main)


def test_a_trace_tells_all_but_bytes_to_who_asks(caplog: pytest.LogCaptureFixture) -> None:
    told: list[tuple[float, str, str]] = []

    async def main(world: World) -> None:
        world.trace.on_record = lambda *record: told.append(record)
        hosts = add_hosts(world, 3)
        await world.start()
        await agree(hosts, 2)
        await hosts[2].crash()

    world = make_world(record=True)
    with caplog.at_level(logging.ERROR):
        world.run(main)
    assert not caplog.records
    assert [text for _, kind, text in told if kind == "crash"] == ["n2 killed"]
    assert {"start", "head", "crash", "stop"} <= {kind for _, kind, _ in told}
    assert " > " in world.trace.text
    assert len(Trace(lambda: 0.0).digest()) == 64
    with pytest.raises(SimulationError, match="not kept"):
        _ = Trace(lambda: 0.0).text


def test_the_names_of_the_package_are_there() -> None:
    for name in moderntensor.simulation.__all__:
        assert getattr(moderntensor.simulation, name) is not None
    assert set(moderntensor.simulation.__all__) <= set(dir(moderntensor.simulation))
    with pytest.raises(AttributeError):
        _ = moderntensor.simulation.nothing
