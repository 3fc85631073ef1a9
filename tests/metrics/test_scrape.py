"""What a live node tells Prometheus: read by Prometheus' own parser, compared with the node."""

from __future__ import annotations

import asyncio
import importlib
import shutil
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import ClientSession, web
from helpers.extended import GetLog, Log, Say
from helpers.rawpeer import RawPeer
from helpers.sync_nodes import ACCOUNTS, CONFIG, SETTINGS, VALIDATORS, extend, grown, serving, until
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from moderntensor.blockchain.chain import Blockchain
from moderntensor.blockchain.transaction import Transaction
from moderntensor.errors import ConfigError
from moderntensor.metrics import CONTENT_TYPE, NodeCollector, render, scrape
from moderntensor.metrics.catalogue import ALL, Kind
from moderntensor.metrics.readings import read, read_store
from moderntensor.network.extensions import Extension
from moderntensor.network.latencies import BOUNDS
from moderntensor.network.messages import MessageType
from moderntensor.network.protocol import DisconnectCode
from moderntensor.node import FullNode

QUIET = SETTINGS.replace(
    transport="plaintext", ping_interval=60.0, ping_timeout=60.0, follow_interval=5.0
)
# A stranger's own words, which are to be nowhere in what a monitoring system is told.
EVIL = 'agent"} 1\\ # TYPE'

Key = tuple[str, frozenset[tuple[str, str]]]


class Scraped:
    """The samples of one scrape, by name and labels."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.kinds: dict[str, str] = {}
        self.samples: dict[Key, float] = {}
        for family in text_string_to_metric_families(text):
            self.kinds[family.name] = family.type
            for sample in family.samples:
                key = sample.name, frozenset(sample.labels.items())
                assert key not in self.samples
                self.samples[key] = sample.value

    def get(self, name: str, **labels: str) -> float | None:
        return self.samples.get((f"moderntensor_{name}", frozenset(labels.items())))

    def by(self, name: str, label: str, **labels: str) -> dict[str, float]:
        """The samples of a name with these labels, by another one."""
        found = {}
        for (name_of, pairs), value in self.samples.items():
            given = dict(pairs)
            if name_of == f"moderntensor_{name}" and labels.items() <= given.items():
                found[given[label]] = value
        return found


@asynccontextmanager
async def observed(node: FullNode) -> AsyncIterator[str]:
    """The URL at which a node can be scraped over loopback."""

    async def answer(_: web.Request) -> web.Response:
        return web.Response(body=await scrape(node), headers={"Content-Type": CONTENT_TYPE})

    app = web.Application()
    app.router.add_get("/metrics", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        port = runner.addresses[0][1]
        yield f"http://127.0.0.1:{port}/metrics"
    finally:
        await runner.cleanup()


async def scraped(url: str) -> Scraped:
    async with ClientSession() as session, session.get(url) as response:
        assert response.status == 200
        assert response.headers["Content-Type"] == CONTENT_TYPE
        return Scraped(await response.text())


async def at_rest(url: str, node: FullNode) -> Scraped:
    """A scrape during which no message came or went, so that all of it can be compared."""
    async with asyncio.timeout(20):
        while True:
            rows = node.p2p.traffic.by_type()
            found = await scraped(url)
            if node.p2p.traffic.by_type() == rows:
                return found


def branches() -> tuple[Blockchain, Blockchain]:
    """Two chains that share 20 blocks; the second is longer."""
    short, long = grown(20, 2), grown(20, 2)
    return extend(short, 5, 1), extend(long, 9, 2)


async def offend(node: FullNode) -> None:
    """Somebody with bad words says what nobody may say, and is banned for it."""
    async with await RawPeer.meet(node.p2p, source="127.0.0.3", user_agent=EVIL) as raw:
        await until(lambda: any(peer.user_agent.startswith("agent") for peer in node.p2p.table))
        assert b"agent" not in render(node)
        raw.write((1 << 30).to_bytes(4, "big") + bytes([MessageType.PING]))
        await raw.read_goodbye()


@pytest.mark.long
async def test_all_that_is_told_is_what_the_node_knows() -> None:
    """Peers, a sync, a ban, a reorganisation, a transaction: every figure is the node's own."""
    short, long = branches()
    settings = QUIET.replace(exempt_local=False, redial_interval=0.0)
    node = FullNode(None, CONFIG, settings=settings)
    async with (
        serving(short, settings=QUIET) as first,
        serving(long, settings=QUIET) as second,
        node,
        observed(node) as url,
    ):
        before = await scraped(url)
        assert before.get("head_height") == 0
        assert before.get("peers", direction="outbound") == 0
        assert not before.by("peer_latency_seconds", "rank")
        assert before.get("clock_offset_seconds") is None  # nobody has said
        assert before.get("disk_free_bytes") is None  # in memory

        await node.p2p.connect_peer("127.0.0.1", first.listen_port)
        await until(lambda: node.chain.head.hash == short.head.hash)
        await node.p2p.connect_peer("127.0.0.1", second.listen_port)
        await until(lambda: node.chain.head.hash == long.head.hash)
        await offend(node)
        node.p2p.ban("10.0.0.0/8", 600, 'by hand"} 1')
        nonce = node.mempool.next_nonce(ACCOUNTS[0].address)
        waiting = Transaction.create(
            ACCOUNTS[0], chain_id=CONFIG.chain_id, nonce=nonce, to=ACCOUNTS[1].address, value=1
        )
        await node.p2p.broadcast_transaction(waiting)
        await until(lambda: node.p2p.table.by_id and node.sync.status.phase.value == "following")
        await until(lambda: all(peer.latency is not None for peer in node.p2p.table))

        now = await at_rest(url, node)
        check_chain(now, node)
        check_peers(now, node)
        check_conduct(now, node)
        check_traffic(before, now, node)
        check_histograms(now, node)
        check_form(now)
        assert "agent" not in now.text and "by hand" not in now.text
        assert "127.0.0.1" not in now.text  # no peer is a label
    assert not asyncio.all_tasks() - {asyncio.current_task()}


def check_chain(now: Scraped, node: FullNode) -> None:
    chain, status = node.chain, node.sync.status
    assert now.get("head_height") == chain.head.height == 29
    assert now.get("header_height") == chain.header_head.height
    assert now.get("head_timestamp_seconds") == chain.head.timestamp
    assert now.get("block_time_seconds") == chain.config.block_time
    assert now.get("earliest_body_height") == chain.earliest_height
    assert now.get("state_available") == 1
    assert now.get("reorganisations_total") == chain.counts.reorganisations == 1
    assert now.get("reverted_blocks_total") == chain.counts.reverted == 5
    assert now.get("deepest_reorganisation_blocks") == 5
    assert now.get("blocks_executed_total") == chain.counts.blocks == 25 + 9
    assert now.get("transactions_executed_total") == chain.counts.transactions == 40 + 5 + 18
    assert now.get("database_bytes") == chain.store.size_on_disk() > 0
    assert now.get("mempool_transactions") == len(node.mempool) == 1
    assert now.get("mempool_bytes") == node.mempool.size > 0
    assert now.by("sync_phase", "phase")[status.phase.value] == 1
    assert sum(now.by("sync_phase", "phase").values()) == 1
    assert now.get("sync_target_height") == status.target_height
    assert now.get("sync_received_bytes") == status.bytes_received
    assert now.get("sync_progress_ratio") == status.progress == 1
    assert now.get("sync_waiting") == 0
    assert now.get("producing") == now.get("blocks_produced_total") == 0


def check_peers(now: Scraped, node: FullNode) -> None:
    info, peers = node.p2p.info, list(node.p2p.table)
    assert now.by("peers", "direction") == {"inbound": info.inbound, "outbound": info.outbound}
    assert info.outbound == 2
    assert now.get("peers_wanted", direction="inbound") == info.inbound_limit
    assert now.get("sockets_open") == info.sockets
    heights = sorted(peer.best_height for peer in peers)
    if (promtool := shutil.which("promtool")) is not None:
        command = [promtool, "check", "metrics"]
        done = subprocess.run(command, input=now.text, text=True, capture_output=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")
    assert now.by("peer_claimed_height", "rank") == {
        "0": heights[0],
        "0.5": heights[0],
        "0.9": heights[1],
        "1": heights[1],
    }
    latencies = [peer.latency for peer in peers]
    assert now.get("peer_latency_seconds", rank="1") == max(latencies)  # type: ignore[type-var]
    report = node.p2p.budget.report()
    assert now.get("budget_bytes") == report.total
    assert set(now.by("budget_held_bytes", "kind")) == {kind.value for kind in report.by_kind}
    assert now.get("budget_held_bytes", kind="mempool") == node.mempool.size


def check_conduct(now: Scraped, node: FullNode) -> None:
    counts = node.p2p.reputation.counts
    offences = {name: count for name, count in now.by("offences_total", "offence").items() if count}
    assert offences == dict(counts.offences) == {"oversized_frame": 1}
    assert now.get("offence_drops_total", offence="oversized_frame") == 1
    given = {name: count for name, count in now.by("bans_total", "reason").items() if count}
    assert given == dict(counts.bans) == {"oversized_frame": 1, "operator": 1}
    # An operator's words are no label.
    assert now.by("bans_in_force", "reason") == {"operator": 0, "oversized_frame": 1, "other": 1}
    assert len(node.p2p.list_bans()) == 2
    assert now.get("peer_departures_total", by="us", reason="protocol_error") == 1
    assert sum(counts.departures.values()) == 1


def check_traffic(before: Scraped, now: Scraped, node: FullNode) -> None:
    for row in node.p2p.traffic.by_type():
        for direction, messages, size in (
            ("received", row.messages_received, row.bytes_received),
            ("sent", row.messages_sent, row.bytes_sent),
        ):
            labels = {"direction": direction, "type": row.name}
            assert now.get("messages_total", **labels) == messages
            assert now.get("message_bytes_total", **labels) == size
            assert before.get("messages_total", **labels) == 0
    sent = now.by("messages_total", "type", direction="sent")
    assert sent["HELLO"] == 3
    assert sent["NEW_TRANSACTION"] == 2
    assert sent["GET_HEADERS"] > 0 and sent["GET_BLOCK_BODIES"] > 0
    received = now.by("messages_total", "type", direction="received")
    assert received["HEADERS"] >= 1 and received["BLOCK_BODIES"] >= 1
    assert now.by("messages_refused_total", "type")["PING"] == 0


def check_histograms(now: Scraped, node: FullNode) -> None:
    measured = node.p2p.traffic.requests.by_type
    assert MessageType.GET_HEADERS in measured
    for kind, latency in measured.items():
        name = node.p2p.traffic.name_of(kind)
        assert now.get("request_seconds_count", type=name) == latency.count
        assert now.get("request_seconds_sum", type=name) == pytest.approx(latency.seconds)
        buckets = now.by("request_seconds_bucket", "le", type=name)
        assert [float(le) for le in buckets] == [*BOUNDS, float("inf")]
        assert list(buckets.values()) == sorted(buckets.values())  # they add up
        assert buckets["+Inf"] == latency.count
        assert now.get("request_timeouts_total", type=name) == 0


def check_form(now: Scraped) -> None:
    """Every metric is one of the catalogue or of the process, and every one of those can be had."""
    kinds = {m.name.removesuffix("_total"): m.kind.value for m in ALL}
    ours = {name: kind for name, kind in now.kinds.items() if not name.startswith("process_")}
    assert ours.items() <= kinds.items()
    here = {"clock_offset_seconds", "disk_free_bytes"}  # not known to this node
    assert set(kinds) - set(ours) == {f"moderntensor_{name}" for name in here}
    labels = {
        m.name + suffix: {*m.labels, *more}
        for m in ALL
        for suffix, more in (
            [("_bucket", ["le"]), ("_sum", []), ("_count", [])]
            if m.kind is Kind.HISTOGRAM
            else [("", [])]
        )
    }
    for name, pairs in now.samples:
        if not name.startswith("process_"):
            assert {label for label, _ in pairs} == labels[name], name


async def test_what_has_not_happened_yet_is_told_as_zero() -> None:
    """Or a rate would miss the first of each, and a ratio all of them."""
    async with FullNode(
        None, CONFIG, settings=QUIET, extensions=[Extension("chat/1", [Say, GetLog, Log])]
    ) as node:
        now = Scraped(render(node).decode())
        requests = {name for name in MessageType.__members__ if name.startswith("GET_")}
        requests.add("chat/1 GetLog")
        for name in ("request_timeouts_total", "busy_replies_total", "request_seconds_count"):
            assert now.by(name, "type") == dict.fromkeys(requests, 0), name
        assert now.by("answer_seconds_count", "type") == dict.fromkeys(requests, 0)
        assert now.get("request_seconds_bucket", type="GET_BLOCKS", le="+Inf") == 0
        reasons = {code.name.lower() for code in DisconnectCode} | {"closed", "other"}
        for by in ("us", "peer"):
            gone = now.by("peer_departures_total", "reason", by=by)
            assert gone == dict.fromkeys(reasons, 0)
        assert now.get("messages_refused_total", type="chat/1 Say") == 0
        for direction in ("received", "sent"):
            found = now.by("messages_total", "type", direction=direction)
            assert found["chat/1 Say"] == found["chat/1 Log"] == 0


async def test_the_loop_does_not_ask_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    async with FullNode(None, CONFIG, settings=QUIET) as node:
        asked: list[int] = []

        def noted(of: FullNode) -> Any:
            asked.append(threading.get_ident())
            return read_store(of)

        monkeypatch.setattr("moderntensor.metrics.collector.read_store", noted)
        text = (await scrape(node)).decode()
        assert asked and threading.get_ident() not in asked

        def asks() -> None:
            asked.append(threading.get_ident())

        for name in ("size_on_disk", "read"):
            monkeypatch.setattr(node.chain.store, name, asks)
        assert list(read(node))  # without a step of the loop, in which others may ask
        assert threading.get_ident() not in asked
        monkeypatch.undo()
    assert Scraped(text).get("state_available") == 1
    assert Scraped(text).get("database_bytes")


# --- bounds ------------------------------------------------------------------------------------


async def test_series_do_not_grow_with_peers() -> None:
    """However many come, under whatever names, there are as many series as before."""
    async with FullNode(None, CONFIG, settings=QUIET) as node:

        async def crowd(count: int) -> set[Key]:
            raws = [
                await RawPeer.meet(node.p2p, node_id=bytes([n + 1]) * 32, user_agent=f"agent {n}")
                for n in range(count)
            ]
            await until(lambda: len(node.p2p.table) == count)
            await until(lambda: all(peer.latency is None for peer in node.p2p.table))
            found = set(Scraped(render(node).decode()).samples)
            for raw in raws:
                await raw.close()
            await until(lambda: not len(node.p2p.table))
            return found

        await crowd(1)
        one = await crowd(1)
        many = await crowd(12)
        assert many == one


async def test_a_registry_of_the_callers_own_takes_the_collector() -> None:
    """It is told the names without a node that runs, so that a clash shows at once."""
    node = FullNode(None, CONFIG, settings=QUIET, producer_key=VALIDATORS[0])
    registry = CollectorRegistry(auto_describe=True)
    registry.register(NodeCollector(node))
    with pytest.raises(ValueError, match="Duplicated"):
        registry.register(NodeCollector(node))
    async with node:
        await until(lambda: node.producer is not None and node.producer.produced > 0)
        assert (registry.get_sample_value("moderntensor_blocks_produced_total") or 0) > 0
        assert registry.get_sample_value("moderntensor_producing") == 1


def test_without_the_extra_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    ours = [name for name in sys.modules if name.startswith("moderntensor.metrics")]
    for name in ours:
        monkeypatch.delitem(sys.modules, name)
    gone: Any = None
    for name in [name for name in sys.modules if name.startswith("prometheus_client")]:
        monkeypatch.setitem(sys.modules, name, gone)
    monkeypatch.setitem(sys.modules, "prometheus_client", gone)
    with pytest.raises(ConfigError, match=r"pip install 'moderntensor\[metrics\]'$"):
        importlib.import_module("moderntensor.metrics")


async def test_tasks_are_those_of_the_loop() -> None:
    """As many more as were started."""

    async def wait() -> None:
        await asyncio.Event().wait()

    async with FullNode(None, CONFIG, settings=QUIET) as node:
        before = Scraped(render(node).decode()).get("tasks")
        more = [asyncio.ensure_future(wait()) for _ in range(3)]
        after = Scraped(render(node).decode()).get("tasks")
        for task in more:
            task.cancel()
        await asyncio.gather(*more, return_exceptions=True)
    assert before is not None and after == before + 3
