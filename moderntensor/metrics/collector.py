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

from ..network.latencies import BOUNDS, Latencies
from ..network.traffic import type_name
from ..node import FullNode
from . import catalogue as c
from .readings import read

__all__ = ["CONTENT_TYPE", "NodeCollector", "render", "scrape"]

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

_BOUNDS: Final = (*map(str, BOUNDS), "+Inf")


class NodeCollector(Collector):
    """The metrics of one node, for a registry of the caller's."""

    def __init__(self, node: FullNode) -> None:
        self._node = node

    def describe(self) -> Iterable[Metric]:
        """All that there may be, without asking the node: a registry wants to know the names."""
        return [_family(metric) for metric in c.ALL]

    def collect(self) -> Iterator[Metric]:
        """What the node says now. On the thread of its loop, while it runs."""
        families: dict[c.Metric, Metric] = {}
        for metric, labels, value in read(self._node):
            family = families.get(metric)
            if family is None:
                family = families[metric] = _family(metric)
            family.add_sample(metric.name, dict(zip(metric.labels, labels, strict=True)), value)
        yield from families.values()
        traffic = self._node.p2p.traffic
        yield _histogram(c.REQUEST_SECONDS, traffic.requests)
        yield _histogram(c.ANSWER_SECONDS, traffic.answers)


def _family(metric: c.Metric) -> Metric:
    """Without samples."""
    if metric.kind is c.Kind.COUNTER:
        return CounterMetricFamily(metric.name, metric.help, labels=metric.labels)
    if metric.kind is c.Kind.GAUGE:
        return GaugeMetricFamily(metric.name, metric.help, labels=metric.labels)
    return HistogramMetricFamily(metric.name, metric.help, labels=metric.labels)


def _histogram(metric: c.Metric, latencies: Latencies) -> Metric:
    """Buckets count from zero, as Prometheus wants them."""
    family = HistogramMetricFamily(metric.name, metric.help, labels=metric.labels)
    for kind, latency in sorted(latencies.by_type.items()):
        buckets, total = [], 0
        for bound, count in zip(_BOUNDS, latency.buckets, strict=True):
            total += count
            buckets.append((bound, total))
        family.add_metric((type_name(kind),), buckets, latency.seconds)
    return family


def render(node: FullNode) -> bytes:
    """The metrics of a node and of its process in Prometheus' text format (`CONTENT_TYPE`), some
    30 KiB. On the thread of the node's loop, while it runs; three milliseconds of it."""
    return _text(NodeCollector(node))


async def scrape(node: FullNode) -> bytes:
    """As `render`, but written on a worker thread: the loop only reads the numbers."""
    return await node.runtime.run(_text, _Collected(tuple(NodeCollector(node).collect())))


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
