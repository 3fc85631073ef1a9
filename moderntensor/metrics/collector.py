"""A node as a collector of `prometheus_client`: read when it is scraped, and at no other time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector

from ..network.latencies import BOUNDS, Latencies, Latency
from ..node import FullNode
from . import catalogue as c
from .readings import Reading, read, read_store, request_types

__all__ = ["CONTENT_TYPE", "NodeCollector", "render", "scrape"]

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

_BOUNDS: Final = (*map(str, BOUNDS), "+Inf")
_NEVER: Final = Latency()
_Taken = dict[str, tuple[tuple[int, ...], float]]


class NodeCollector(Collector):
    """The metrics of one node, for a registry of the caller's."""

    def __init__(self, node: FullNode) -> None:
        self._node = node

    def describe(self) -> Iterable[Metric]:
        """All that there may be, without asking the node: a registry wants to know the names."""
        return [_family(metric) for metric in c.ALL]

    def collect(self) -> Iterator[Metric]:
        """What the node says now. On the thread of its loop, while it runs; asks the store and its
        disk there too, which `scrape` does not."""
        traffic = self._node.p2p.traffic
        yield from _families((*read_store(self._node), *read(self._node)))
        yield _histogram(c.REQUEST_SECONDS, _taken(self._node, traffic.requests))
        yield _histogram(c.ANSWER_SECONDS, _taken(self._node, traffic.answers))


def _families(readings: Iterable[Reading]) -> Iterator[Metric]:
    families: dict[c.Metric, Metric] = {}
    for metric, labels, value in readings:
        family = families.get(metric)
        if family is None:
            family = families[metric] = _family(metric)
        family.add_sample(metric.name, dict(zip(metric.labels, labels, strict=True)), value)
    yield from families.values()


def _family(metric: c.Metric) -> Metric:
    """Without samples."""
    if metric.kind is c.Kind.COUNTER:
        return CounterMetricFamily(metric.name, metric.help, labels=metric.labels)
    if metric.kind is c.Kind.GAUGE:
        return GaugeMetricFamily(metric.name, metric.help, labels=metric.labels)
    return HistogramMetricFamily(metric.name, metric.help, labels=metric.labels)


def _taken(node: FullNode, latencies: Latencies) -> _Taken:
    """What was measured until now, by type. Also of types that were never answered, or a comparison
    with them would say nothing where nobody answers at all."""
    found = dict.fromkeys(request_types(node), _NEVER) | latencies.by_type
    name_of = node.p2p.traffic.name_of
    return {name_of(kind): (tuple(of.buckets), of.seconds) for kind, of in sorted(found.items())}


def _histogram(metric: c.Metric, taken: _Taken) -> Metric:
    """Buckets count from zero, as Prometheus wants them."""
    family = HistogramMetricFamily(metric.name, metric.help, labels=metric.labels)
    for name, (counts, seconds) in taken.items():
        buckets, total = [], 0
        for bound, count in zip(_BOUNDS, counts, strict=True):
            total += count
            buckets.append((bound, total))
        family.add_metric((name,), buckets, seconds)
    return family


def render(node: FullNode) -> bytes:
    """The metrics of a node and of its process in Prometheus' text format (`CONTENT_TYPE`), some
    45 KiB. On the thread of the node's loop, while it runs; some ten milliseconds of it."""
    return _text(NodeCollector(node))


async def scrape(node: FullNode) -> bytes:
    """As `render`, but the loop only reads numbers: the store and its disk are asked on a worker
    thread, which also writes the text."""
    traffic = node.p2p.traffic
    numbers = tuple(read(node))
    requests, answers = _taken(node, traffic.requests), _taken(node, traffic.answers)

    def write() -> bytes:
        families = _families((*read_store(node), *numbers))
        histograms = (
            _histogram(c.REQUEST_SECONDS, requests),
            _histogram(c.ANSWER_SECONDS, answers),
        )
        return _text(_Collected((*families, *histograms)))

    return await node.runtime.run(write)


class _Collected(Collector):
    """What was read."""

    def __init__(self, families: tuple[Metric, ...]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families


def _text(collector: Collector) -> bytes:
    registry = CollectorRegistry(auto_describe=False)
    registry.register(collector)
    ProcessCollector(registry=registry)
    return generate_latest(registry)
