"""The cost of being watched in small: it runs, all watch, and what came out is kept."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.api_cost import page, run
from benchmarks.api_cost.__main__ import main
from benchmarks.api_cost.ratios import Ratio
from benchmarks.api_cost.watchers import Scraper, Script
from moderntensor.api import ApiServer
from moderntensor.blockchain.workload import demo_config, demo_keys
from moderntensor.config import NodeConfig
from moderntensor.node import FullNode


def sample(rate: float, processor: float = 10.0, **counts: dict[str, float]) -> dict[str, Any]:
    loop = processor - 9.5
    return {
        "rate": rate, "processor": processor, "loop": loop, "others": 0.1 * loop, "seconds": 10.0,
        "counts": counts,
    }  # fmt: skip


def test_a_ratio_is_of_medians_and_says_how_far_it_can_be_trusted() -> None:
    without = [100.0, 104.0, 96.0, 100.0, 60.0]
    exact = Ratio.of([rate * 0.9 for rate in without], without)
    assert [exact.low, exact.middle, exact.high] == pytest.approx([0.9] * 3)
    noisy = Ratio.of([90.0, 99.0, 95.0, 50.0, 91.0], without)
    assert noisy.middle == pytest.approx(0.91)
    assert noisy.low < 0.91 <= noisy.high
    assert noisy == Ratio.of([90.0, 99.0, 95.0, 50.0, 91.0], without)  # the same each time
    with pytest.raises(ValueError, match="no round"):
        Ratio.of([], [])
    with pytest.raises(ValueError, match=r"shorter|longer"):
        Ratio.of([1.0], [])


@pytest.mark.parametrize(
    ("rate", "processor", "failures", "met"),
    [(99.0, 10.1, 0, True), (97.0, 10.1, 0, False), (99.0, 10.1, 1, False), (99.0, 10.2, 0, False)],
)
def test_a_cost_above_its_mark_is_missed(
    rate: float, processor: float, failures: int, met: bool
) -> None:
    watched = sample(rate, processor, Scraper={"answers": 5, "failures": failures, "slowest": 0.25})
    costs = run.judged({"plain": [sample(100.0)] * 3, "metrics": [watched] * 3})
    assert costs["metrics"]["met"] is met
    assert costs["metrics"]["processor"]["middle"] == pytest.approx(processor / 10)
    assert costs["metrics"]["work"] == pytest.approx(1.1 * (processor - 10) / 10)
    assert costs["metrics"]["requests_per_second"] == 0.5
    assert costs["metrics"]["slowest_answer"] == 0.25


def test_processors_are_shared_out_but_for_one(monkeypatch: pytest.MonkeyPatch) -> None:
    for here, expected in (({3, 5}, ({3}, {5})), ({0, 1, 2}, ({0}, {1, 2})), ({7}, None)):
        monkeypatch.setattr("os.sched_getaffinity", lambda _, here=here: here, raising=False)
        assert run.split(together=False) == expected
        assert run.split(together=True) is None


def test_page_gets_the_table(tmp_path: Path) -> None:
    samples = {"plain": [sample(200.0)], "all": [sample(193.0, 10.2)]}
    found = {
        "machine": "2 cores", "processors": "The node has 1 of them", "page": "Chromium 1",
        "blocks": 2000, "transfers": 10, "suppliers": 3,
        "samples": samples, "costs": run.judged(samples),
    }  # fmt: skip
    path = tmp_path / "metrics.md"
    path.write_text(f"# Metrics\n\n{page.BEGIN}\nold\n{page.END}\nend\n", encoding="utf-8")
    page.write(found, path)
    text = path.read_text(encoding="utf-8")
    assert "plain 200 blocks/s, 10.0 s a sync" in text
    assert "| 2.2% | 5% | held | -3.5% (-3.5% to -3.5%) | +2.0% (+2.0% to +2.0%) | 0.0 |" in text
    assert "old" not in text and text.endswith(f"{page.END}\nend\n")


async def test_who_watches_asks_and_says_what_is_wrong() -> None:
    settings = NodeConfig(listen_host="127.0.0.1", listen_port=0, discovery=False)
    async with FullNode(None, demo_config(demo_keys(2)), settings=settings) as node:
        async with ApiServer(node, port=0) as api, Script(api.url) as script:
            async with Scraper(api.url, 60.0) as scraper:
                await scraper.caught_up(0)
                with pytest.raises(RuntimeError, match="height 0, not 1"):
                    await scraper.caught_up(1)
                with pytest.raises(RuntimeError, match="no event came"):  # nothing has happened
                    await script.caught_up(0)
            assert script.counts["answers"] >= 5
            script.begin()
            assert script.counts["answers"] == script.counts["slowest"] == 0
        limited = ApiServer(node, port=0, rate=1, burst=1)
        async with limited as api, Scraper(api.url, 0.0) as scraper:
            while not scraper.failures:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            assert "429" in scraper.failures[0]
            assert scraper.counts["failures"] == len(scraper.failures)


@pytest.mark.skipif(sys.platform != "linux", reason="nodes get processors of their own")
@pytest.mark.long
def test_a_short_run_watches_and_keeps_what_it_found(tmp_path: Path) -> None:
    out = tmp_path / "found.json"
    given = [
        "--quick",
        "--scrape",
        "0.2",
        "--peers",
        "2",
        "--out",
        str(out),
        "--dir",
        str(tmp_path),
    ]
    assert main(given) == 0
    found = json.loads(out.read_text(encoding="utf-8"))
    assert set(found["samples"]) == {"plain", "metrics", "all"}
    assert found["samples"]["plain"][0]["counts"] == {}
    seen = found["samples"]["all"][0]["counts"]
    last = "Script 3" if "script" in found["page"] else "Page 3"
    assert list(seen) == ["Scraper 1", "Script 2", last]
