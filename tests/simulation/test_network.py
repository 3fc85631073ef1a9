"""The simulated network: how long things take, who shares what, and what its faults do."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable, Coroutine, Iterator
from itertools import pairwise
from random import Random
from statistics import median
from typing import Any

import pytest

from moderntensor.simulation.lines import LINE_QUEUE, Line, Link, retransmission
from moderntensor.simulation.loop import VirtualLoop
from moderntensor.simulation.network import Process, SimNetwork, current_process
from moderntensor.simulation.stream import RECEIVE_WINDOW, TCP_GIVE_UP

A, B, C = "20.0.0.1", "21.0.0.1", "22.0.0.1"
PORT = 30303


class Note:
    """What a trace would hash."""

    def __init__(self) -> None:
        self.connections: list[tuple[str, str, str]] = []
        self.segments: list[tuple[str, str, int]] = []

    def connection(self, kind: str, a: str, b: str) -> None:
        self.connections.append((kind, a, b))

    def segment(self, sender: str, receiver: str, data: bytes | memoryview) -> None:
        self.segments.append((sender, receiver, len(data)))


class End(asyncio.Protocol):
    """Notes when how much has come, and how it ended."""

    def __init__(self, net: Net) -> None:
        self.net = net
        self.got: list[tuple[float, int]] = []
        self.data = bytearray()
        self.ended: str | None = None
        self.end_at = 0.0

    def connection_made(self, transport: Any) -> None:
        self.transport: asyncio.Transport = transport

    def data_received(self, data: bytes) -> None:
        self.got.append((self.net.now, len(data)))
        self.data += data

    def connection_lost(self, error: Exception | None) -> None:
        self.ended = "closed" if error is None else errno.errorcode[getattr(error, "errno", 0)]
        self.end_at = self.net.now


class Net:
    """Hosts A, B and C, each with a process; the latter two listen."""

    def __init__(self) -> None:
        self.loop = VirtualLoop()
        self.note = Note()
        self.network = SimNetwork(self.loop, Random(7), self.note)
        self.network.link = Link(0.05)
        self.processes: dict[str, Process] = {}
        self.accepted: list[End] = []
        for ip in (A, B, C):
            self.network.add_host(ip)

    @property
    def now(self) -> float:
        return self.loop.time()

    def run(self, main: Callable[[], Coroutine[Any, Any, None]]) -> None:
        async def whole() -> None:
            for ip in (A, B, C):
                await self.boot(ip)
            await main()

        self.loop.run_until_complete(whole())
        self.loop.wind_up()
        assert not self.loop.failures

    async def on(self, ip: str, coroutine: Coroutine[Any, Any, Any]) -> Any:
        async def work() -> Any:
            current_process.set(self.processes[ip])
            return await coroutine

        return await asyncio.create_task(work())

    async def boot(self, ip: str) -> None:
        self.processes[ip] = self.network.start_process(ip)
        if ip != A:
            await self.on(ip, self.loop.create_server(self.accept, "0.0.0.0", PORT))  # noqa: S104

    def accept(self) -> End:
        self.accepted.append(End(self))
        return self.accepted[-1]

    async def dial(self, source: str = A, target: str = B, port: int = PORT) -> End:
        _, end = await self.on(source, self.loop.create_connection(lambda: End(self), target, port))
        return end  # type: ignore[no-any-return]

    async def pair(self, source: str = A, target: str = B) -> tuple[End, End]:
        end = await self.dial(source, target)
        await asyncio.sleep(1)
        return end, self.accepted[-1]


@pytest.fixture
def net() -> Iterator[Net]:
    net = Net()
    yield net
    net.loop.close()


def test_a_dial_takes_a_round_trip_and_a_message_half_of_one(net: Net) -> None:
    async def main() -> None:
        end = await net.dial()
        assert net.now == pytest.approx(0.1)
        end.transport.write(b"at once")  # arrives with the last packet of the handshake
        await asyncio.sleep(1)
        [(at, size)] = net.accepted[0].got
        assert size == 7
        assert at == pytest.approx(0.15)
        host = net.network.hosts
        assert (host[A].bytes_out, host[B].bytes_in) == (7, 7)

    net.run(main)
    assert net.note.connections == [("opened", A, B)]
    assert net.note.segments == [(A, B, 7)]


def test_who_is_not_there_refuses_or_is_silent(net: Net) -> None:
    async def main() -> None:
        with pytest.raises(ConnectionRefusedError):
            await net.dial(port=1)
        assert net.now == pytest.approx(0.1)
        with pytest.raises(TimeoutError) as caught:
            await net.dial(target="99.9.9.9")
        assert caught.value.errno == errno.ETIMEDOUT
        assert net.now == pytest.approx(127.1)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(3):
                await net.dial(target="99.9.9.9")
        with pytest.raises(OSError, match="down"):
            await net.loop.create_connection(lambda: End(net), B, PORT)  # of no host

    net.run(main)
    assert net.network.open_sockets == 2


def test_a_port_is_listened_on_once_and_free_ones_are_found(net: Net) -> None:
    async def main() -> None:
        with pytest.raises(OSError, match="in use"):
            await net.on(B, net.loop.create_server(net.accept, B, PORT))
        with pytest.raises(OSError, match="assign"):
            await net.on(B, net.loop.create_server(net.accept, A, PORT))
        server = await net.on(B, net.loop.create_server(net.accept, B, 0, start_serving=False))
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(ConnectionRefusedError):
            await net.dial(port=port)
        await server.start_serving()
        await net.dial(port=port)
        local = await net.on(B, net.loop.create_server(net.accept, "127.0.0.1", 0))
        with pytest.raises(ConnectionRefusedError):
            await net.dial(port=local.sockets[0].getsockname()[1])

    net.run(main)


def test_jitter_spreads_around_the_median_and_keeps_the_order(net: Net) -> None:
    net.network.link = Link(0.1, jitter=0.03)
    late: list[float] = []

    async def main() -> None:
        end, other = await net.pair()
        for number in range(400):
            sent = net.now
            end.transport.write(bytes([number % 256]))
            await asyncio.sleep(1)
            late.append(other.got[-1][0] - sent)
        other.data.clear()
        for number in range(200):  # closer to each other than they spread
            end.transport.write(bytes([number]))
            await asyncio.sleep(0.001)
        await asyncio.sleep(1)
        assert bytes(other.data) == bytes(range(200))

    net.run(main)
    assert median(late) == pytest.approx(0.1, abs=0.006)
    spread = (sum((x - 0.1) ** 2 for x in late) / len(late)) ** 0.5
    assert spread == pytest.approx(0.03, rel=0.25)


def test_what_is_lost_is_late_and_so_is_what_follows(net: Net) -> None:
    net.network.link = Link(0.05, loss=0.2)

    async def main() -> None:
        end, other = await net.pair()
        waits = []
        for number in range(100):
            sent = net.now
            end.transport.write(bytes([number]))
            await asyncio.sleep(10)
            waits.append(other.got[-1][0] - sent)
        assert bytes(other.data) == bytes(range(100))
        late = [wait for wait in waits if wait > 0.06]
        assert 8 < len(late) < 35
        assert min(late) >= 0.05 + 0.2  # a retransmission timeout

    net.run(main)


@pytest.mark.parametrize("senders", [1, 8])
def test_a_line_is_shared_and_filled(net: Net, senders: int) -> None:
    """20 Mbit/s and 100 ms round trip: nine tenths of the line, after the slow start."""
    net.network.set_line(B, Line(down=2_500_000))
    size = 50_000_000 // senders

    async def main() -> None:
        ends = [await net.dial() for _ in range(senders)]
        began = net.now
        for end in ends:
            end.transport.write(bytes(size))
            end.transport.close()
        await asyncio.sleep(100)
        times = [other.end_at - began for other in net.accepted]
        assert max(times) < 50_000_000 / 2_500_000 / 0.9
        assert min(times) > 0.5 * max(times)  # nobody starves

    net.run(main)


def test_a_big_transfer_does_not_hold_up_others_for_longer_than_a_queue(net: Net) -> None:
    net.network.set_line(B, Line(up=125_000, down=125_000))

    async def main() -> None:
        big, small = await net.dial(), await net.dial(C)
        big.transport.write(bytes(5_000_000))
        waits = []
        for _ in range(30):
            await asyncio.sleep(0.9)
            sent = net.now
            small.transport.write(b"ping")
            await asyncio.sleep(0.9)
            waits.append(net.accepted[1].got[-1][0] - sent)
        assert median(waits) < 0.05 + 3 * LINE_QUEUE
        assert max(waits) > 0.06

    net.run(main)


def test_a_line_that_gets_slower_slows_what_waits(net: Net) -> None:
    net.network.set_line(A, Line(up=100_000))

    async def main() -> None:
        end, other = await net.pair()
        began = net.now
        end.transport.write(bytes(100_000))
        await asyncio.sleep(0.5)
        net.network.set_line(A, Line(up=10_000))
        end.transport.close()
        await asyncio.sleep(100)
        assert 4 < other.end_at - began < 7

    net.run(main)


@pytest.mark.parametrize("line", [None, Line(down=10_000_000)])
def test_nothing_overtakes_when_a_line_gets_faster(net: Net, line: Line | None) -> None:
    net.network.set_line(B, Line(down=1000))

    async def main() -> None:
        end, other = await net.pair()
        for number in range(50):
            end.transport.write(bytes([number]) * 100)
            await asyncio.sleep(0.01)
        net.network.set_line(B, line)
        for number in range(50, 100):
            end.transport.write(bytes([number]) * 100)
            await asyncio.sleep(0.01)
        await asyncio.sleep(20)
        assert bytes(other.data) == b"".join(bytes([number]) * 100 for number in range(100))

    net.run(main)


def test_a_reset_that_was_not_heard_is_sent_again(net: Net) -> None:
    async def main() -> None:
        end, _ = await net.pair()
        net.network.kill(net.processes[B], silent=True)
        await net.boot(B)
        net.network.block(B, A)
        end.transport.write(b"hello?")
        await asyncio.sleep(10)
        assert end.ended is None
        net.network.heal()
        await asyncio.sleep(20)
        assert end.ended == "ECONNRESET"

    net.run(main)


def test_a_reader_that_pauses_stops_its_sender(net: Net) -> None:
    async def main() -> None:
        end, other = await net.pair()
        other.transport.pause_reading()
        end.transport.write(bytes(5_000_000))
        await asyncio.sleep(60)
        assert other.got == []
        assert end.transport.get_write_buffer_size() > 5_000_000 - RECEIVE_WINDOW * 4
        assert net.network.hosts[B].bytes_in <= RECEIVE_WINDOW
        other.transport.resume_reading()
        await asyncio.sleep(60)
        assert len(other.data) == 5_000_000

    net.run(main)


def test_what_is_sent_across_a_partition_arrives_after_it_heals(net: Net) -> None:
    async def main() -> None:
        end, other = await net.pair()
        end.transport.write(b"under way")
        net.network.partition([A], [B, C])
        await asyncio.sleep(10)
        end.transport.write(b", sent meanwhile")
        other.transport.write(b"the other way")
        await asyncio.sleep(50)
        assert not other.data
        assert not end.data
        net.network.heal()
        healed = net.now
        await asyncio.sleep(0.04)
        end.transport.write(b", sent after")
        await asyncio.sleep(200)
        assert other.data == b"under way, sent meanwhile, sent after"
        assert end.data == b"the other way"
        assert healed < other.got[0][0] < healed + 61  # the pauses had doubled up to then

    net.run(main)


def test_one_way_the_other_side_hears_but_is_not_heard(net: Net) -> None:
    async def main() -> None:
        end, other = await net.pair()
        net.network.block(B, A)
        net.network.block(B, A)
        end.transport.write(bytes(100_000))
        other.transport.write(b"answer")
        await asyncio.sleep(30)
        assert 0 < len(other.data) < 100_000  # without acknowledgements the window stays closed
        assert not end.data
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(10):
                await net.dial()  # the answer to the first packet does not come
        net.network.unblock(B, A)
        await asyncio.sleep(100)
        assert len(other.data) == 100_000
        assert end.data == b"answer"

    net.run(main)


def test_a_sender_that_hears_nothing_gives_up_and_the_other_side_never_knows(net: Net) -> None:
    async def main() -> None:
        end, other = await net.pair()
        idle, _ = await net.pair()
        net.network.partition([A], [B])
        end.transport.write(b"hello?")
        sent = net.now
        await asyncio.sleep(1000)
        assert end.ended == "ETIMEDOUT"
        assert end.end_at == pytest.approx(sent + TCP_GIVE_UP, abs=1)
        net.network.heal()
        await asyncio.sleep(1000)
        assert other.ended is None  # half-open
        assert idle.ended is None  # who has nothing to send notices nothing
        other.transport.write(b"hello?")
        await asyncio.sleep(1)
        assert other.ended == "ECONNRESET"
        assert not other.data

    net.run(main)


def test_a_dial_across_an_outage_succeeds_at_a_retry_after_it(net: Net) -> None:
    async def main() -> None:
        net.network.partition([A], [B])
        dial = asyncio.create_task(net.dial())
        await asyncio.sleep(4)
        net.network.heal()
        await dial
        assert 6.9 < net.now < 7.3  # 1, 3 and 7 seconds

    net.run(main)


def test_a_reset_ends_the_connections_of_two_hosts(net: Net) -> None:
    async def main() -> None:
        end, other = await net.pair()
        third, _ = await net.pair(C, B)
        net.network.reset(B, A)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert end.ended == other.ended == "ECONNRESET"
        assert third.ended is None
        net.network.reset(B)
        await asyncio.sleep(0.1)
        assert third.ended == "ECONNRESET"

    net.run(main)
    assert net.note.connections.count(("reset", B, A)) == 1


def test_the_kernel_of_a_killed_process_closes_its_sockets(net: Net) -> None:
    async def main() -> None:
        end, other = await net.pair()
        unread, reading = await net.pair()
        reading.transport.pause_reading()
        unread.transport.write(b"nobody reads this")
        await asyncio.sleep(1)
        other.transport.write(b"with the kernel already")
        net.network.kill(net.processes[B])
        net.network.kill(net.processes[B])
        other.transport.write(b"too late")
        await asyncio.sleep(1)
        assert end.data == b"with the kernel already"
        assert end.ended == "closed"
        assert unread.ended == "ECONNRESET"
        assert other.ended is None  # nobody is there who could be told
        with pytest.raises(ConnectionRefusedError):
            await net.dial()
        await net.boot(B)
        await net.dial()

    net.run(main)


def test_a_host_without_power_is_silent_until_it_is_back_and_knows_nothing(net: Net) -> None:
    async def main() -> None:
        end, _ = await net.pair()
        idle, _ = await net.pair()
        net.network.kill(net.processes[B], silent=True)
        end.transport.write(b"hello?")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(10):
                await net.dial()
        await asyncio.sleep(50)
        assert end.ended is None
        await net.boot(B)
        await asyncio.sleep(130)
        assert end.ended == "ECONNRESET"  # the retransmission meets a kernel that never heard of it
        assert idle.ended is None
        idle.transport.write(b"hello?")
        await asyncio.sleep(1)
        assert idle.ended == "ECONNRESET"

    net.run(main)


def test_the_dead_do_nothing(net: Net) -> None:
    async def main() -> None:
        end, other = await net.pair()
        dial = asyncio.create_task(net.dial())
        await asyncio.sleep(0.01)
        net.network.kill(net.processes[A], silent=True)
        end.transport.write(b"from the grave")
        end.transport.write_eof()
        end.transport.close()
        await asyncio.sleep(10)
        assert not other.data
        assert other.ended is None
        assert not dial.done()
        with pytest.raises(OSError, match="down"):
            await net.on(A, net.loop.create_server(net.accept, A, 5))
        dial.cancel()

    net.run(main)


def test_a_dial_that_is_cancelled_leaves_nothing(net: Net) -> None:
    async def main() -> None:
        for after in (0.03, 0.07, 0.0999):
            dial = asyncio.create_task(net.dial())
            await asyncio.sleep(after)
            dial.cancel()
            await asyncio.sleep(1)

    net.run(main)
    assert net.network.open_sockets == 2


def test_links_of_hosts_and_of_pairs(net: Net) -> None:
    network = net.network
    far = network.add_host("23.0.0.1", link=Link(0.25, 0.1, 0.1))
    a, b = network.hosts[A], network.hosts[B]
    assert network.link_between(a, b) == Link(0.05)
    assert network.link_between(a, far).latency == pytest.approx(0.15)
    assert network.link_between(a, a).latency < 0.001

    async def main() -> None:
        end, other = await net.pair()
        network.set_link(A, B, Link(0.5))
        sent = net.now
        end.transport.write(b"x")
        await asyncio.sleep(2)
        network.set_link(A, B, None)
        end.transport.write(b"x")
        await asyncio.sleep(2)
        assert [at - sent for at, _ in other.got] == pytest.approx([0.5, 2.05])

    net.run(main)


def test_what_cannot_be() -> None:
    for wrong in ((-1,), (1, -1), (1, 0, 1)):
        with pytest.raises(ValueError, match="no such link"):
            Link(*wrong)
    with pytest.raises(ValueError, match="no such line"):
        Line(up=0)
    net = Net()
    with pytest.raises(ValueError, match="already"):
        net.network.add_host(A)
    net.network.start_process(A)
    with pytest.raises(ValueError, match="already"):
        net.network.start_process(A)
    net.loop.close()


def test_retransmissions_wait_twice_as_long_each_time_up_to_two_minutes() -> None:
    tries = [0.0]
    while tries[-1] < 1000:
        tries.append(retransmission(0.0, tries[-1] + 0.001, 0.1))
    pauses = [b - a for a, b in pairwise(tries)]
    assert pauses[:4] == pytest.approx([0.2, 0.4, 0.8, 1.6])
    assert max(pauses) == pytest.approx(120)
