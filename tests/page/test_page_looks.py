"""How the page looks and handles, in a real browser, with what a test puts before it."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator

import pytest
from helpers.browser import Opened, Theme, browser, opened
from helpers.looks import POOR_CONTRAST, TOO_WIDE
from helpers.page_server import HEIGHT, Said, peer, saying, sync

from moderntensor.client import model

pytestmark = pytest.mark.long
HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)>"
WARNINGS = [
    model.Concern(code="no_peers", severity="critical", text="No peer.", hint="Look at the line."),
    model.Concern(code="clock_off", severity="warning", text="Clock off.", hint="Set the clock."),
    model.Concern(code="few_peers", severity="notice", text="Few peers.", hint="Open the port."),
]
TRAFFIC = [
    model.Traffic(
        type=name, messages_received=n, messages_sent=n, bytes_received=9**n, bytes_sent=10 * n
    )
    for n, name in enumerate(["PING", "NEW_BLOCK_HASHES", "GET_BLOCK_BODIES", "0x81"])
]


def crowd(count: int, agent: str = "moderntensor/0.7.0") -> list[model.Peer]:
    return [
        peer(n, outbound=n % 5 == 0, latency=None if n == 4 else 0.001 * 1.2**n, agent=agent)
        for n in range(count)
    ]


@pytest.fixture
async def said() -> Said:
    return Said(peers=crowd(5), traffic=TRAFFIC)


@pytest.fixture
async def served(said: Said) -> AsyncIterator[str]:
    async with saying(said) as base:
        yield base


async def filled_blocks(page: Opened) -> None:
    await page.until("() => document.querySelectorAll('#blocks tbody tr').length > 0")


async def peaks(page: Opened) -> tuple[float, float]:
    """Of blocks and transactions per second, as the charts say them."""
    said: list[str] = await page.page.evaluate(
        "[...document.querySelectorAll('.summary')].map((summary) => summary.innerText)"
    )
    blocks, transactions = (re.findall(r"peak ([0-9.]+)", text) for text in said[:2])
    return float(blocks[0]), float(transactions[0])


async def filled(page: Opened) -> None:
    await filled_blocks(page)
    await page.until("() => document.querySelectorAll('.chart .dot').length > 0")


@pytest.mark.parametrize("theme", ["light", "dark"])
async def test_all_text_can_be_read(said: Said, served: str, theme: Theme) -> None:
    said.warnings = WARNINGS
    said.sync = sync(phase="blocks", progress=0.5, target_height=2 * HEIGHT, eta=65.0)
    async with browser() as running, opened(running, served, theme=theme) as page:
        await filled(page)
        await page.page.locator(".open").first.click()
        await page.page.locator(".transactions").wait_for()
        result = await page.page.evaluate(POOR_CONTRAST)
        assert result["seen"] > 150
        assert result["found"] == []
        scheme = await page.page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (scheme == "rgb(243, 246, 247)") == (theme == "light")


@pytest.mark.parametrize("width", [360, 768, 1024, 1600])
async def test_nothing_is_wider_than_its_place(said: Said, served: str, width: int) -> None:
    said.peers = [*crowd(40), *crowd(1, agent="W" * 255)]
    said.warnings = WARNINGS
    async with browser() as running, opened(running, served, width=width) as page:
        await filled(page)
        await page.page.locator(".open").first.click()
        await page.page.locator(".transactions").wait_for()
        await page.page.locator("#peers-more").click()
        for details in await page.page.locator("details summary").all():
            await details.click()
        assert await page.page.evaluate(TOO_WIDE) == []
        for count in (0, 5):
            said.peers = crowd(count)
            await page.until(
                "(n) => document.querySelectorAll('#peers tbody tr').length === n", count
            )
            assert await page.page.evaluate(TOO_WIDE) == []


async def test_what_peers_say_is_text(said: Said, served: str) -> None:
    said.peers = crowd(3, agent=HOSTILE)
    said.traffic = [
        model.Traffic(
            type=HOSTILE, messages_received=1, messages_sent=1, bytes_received=1, bytes_sent=1
        )
    ]
    said.warnings = [
        model.Concern(code="tip_stale", severity="warning", text=HOSTILE, hint=HOSTILE)
    ]
    async with browser() as running, opened(running, served) as page:
        alerts: list[str] = []
        page.page.on("dialog", lambda dialog: alerts.append(dialog.message))
        await filled(page)
        shown = await page.page.locator('data[data-field="user_agent"]').all_inner_texts()
        assert shown == [HOSTILE] * 3
        assert await page.page.locator("#warning-list span").inner_text() == HOSTILE
        assert await page.page.locator("#traffic tbody th").inner_text() == HOSTILE
        assert await page.page.locator("main img, main script").count() == 0
        assert alerts == []


async def test_a_block_with_many_transactions_shows_the_first(said: Said, served: str) -> None:
    async with browser() as running, opened(running, served) as page:
        await filled(page)
        await page.page.locator(".open").first.click()
        await page.page.locator(".transactions").wait_for()
        assert await page.page.locator(".transactions tbody tr").count() == 50
        detail = (await page.page.locator("#blocks .detail").inner_text()).replace("\u00a0", " ")
        assert "and 10 transactions more" in detail
        assert f"{2**128 - 1:,}" in detail  # to the last digit
        assert "failed" in detail


async def test_warnings_come_and_go(said: Said, served: str) -> None:
    async with browser() as running, opened(running, served) as page:
        await filled(page)
        assert not await page.page.locator("#warnings").is_visible()
        said.warnings = WARNINGS
        await page.until("() => document.querySelectorAll('#warning-list li').length === 3")
        first = await page.page.locator("#warning-list li").first.inner_text()
        assert " ".join(first.split()) == "Critical No peer. Look at the line."
        assert "No peer." in await page.page.locator("#announce").inner_text()
        shapes = page.page.locator("#warning-list .mark path:first-child")
        drawn = {await shape.get_attribute("d") for shape in await shapes.all()}
        assert len(drawn) == 3  # told apart without colours
        said.warnings = []
        await page.until("() => document.getElementById('warnings').hidden")


async def test_peers_are_sorted_by_any_column(said: Said, served: str) -> None:
    said.peers = crowd(8)
    async with browser() as running, opened(running, served) as page:
        await filled(page)

        async def order(column: str) -> list[str]:
            await page.page.get_by_role("button", name=column, exact=True).click()
            rows = page.page.locator("#peers tbody tr")
            return [await row.get_attribute("data-address") or "" for row in await rows.all()]

        by_latency = sorted(said.peers, key=lambda p: (p.latency is None, p.latency, p.address))
        assert await order("Round trip") == [each.address for each in by_latency]
        assert await page.page.locator("th[aria-sort]").inner_text() == "Round trip"
        down = await order("Round trip")
        assert down == [each.address for each in reversed(by_latency)]
        sent = sorted(said.peers, key=lambda p: -p.bytes_sent)
        assert await order("Sent") == [each.address for each in sent]


async def test_peers_stand_as_far_away_as_their_round_trips(said: Said, served: str) -> None:
    said.peers = crowd(10)
    async with browser() as running, opened(running, served, still=True) as page:
        await filled(page)
        placed = await page.page.evaluate(
            """() => [...document.querySelectorAll('.latency .dot')].map((dot) => {
              const [x, y] = dot.style.transform.match(/-?[\\d.]+/g).map(Number);
              return [dot.dataset.address, x - 180, y - 180, dot.querySelector('rect') === null];
            })"""
        )
        peers = {each.address: each for each in said.peers}
        distances = []
        for address, x, y, disc in placed:
            each = peers[address]
            assert disc == each.outbound  # by shape
            assert (x > 0) == each.outbound  # and by side
            distances.append((each.latency or float("inf"), (x * x + y * y) ** 0.5))
        ordered = [distance for _, distance in sorted(distances)]
        assert len(placed) == 10
        assert ordered == sorted(ordered)
        assert "half within" in (await page.page.get_attribute(".latency svg", "aria-label"))


async def test_all_of_it_by_keyboard(said: Said, served: str) -> None:
    said.peers = crowd(20)
    async with browser() as running, opened(running, served) as page:
        await filled(page)
        stops: list[tuple[str, bool]] = []
        for _ in range(80):
            await page.page.keyboard.press("Tab")
            name, seen = await page.page.evaluate(
                """() => {
                  const at = document.activeElement;
                  const style = getComputedStyle(at);
                  const { top, bottom } = at.getBoundingClientRect();
                  const seen = style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) >= 2
                    && bottom > 0 && top < innerHeight;
                  return [at.tagName === 'BODY' ? '' : at.textContent.trim(), seen];
                }"""
            )
            if not name:
                break
            stops.append((name, seen))
        names = [name for name, _ in stops]
        assert [name for name, seen in stops if not seen] == []
        assert names[0] == "Skip to the content"
        assert {"Values", "Height", "Round trip", "Offences", "Show all 20"} <= set(names)
        assert f"{HEIGHT:,}" in names
        block = page.page.locator(".open").first
        await block.focus()
        await page.page.keyboard.press("Enter")
        assert await block.get_attribute("aria-expanded") == "true"
        assert await page.page.locator("#blocks tr.detail").count() == 1
        assert await block.evaluate("(button) => document.activeElement === button")
        await page.page.keyboard.press("Space")
        assert await page.page.locator("#blocks tr.detail").count() == 0


async def test_nothing_moves_for_those_who_do_not_want_it(said: Said, served: str) -> None:
    moving = """() => [...document.querySelectorAll('*')].filter((element) => {
      const style = getComputedStyle(element);
      return style.animationName !== 'none' || parseFloat(style.transitionDuration) > 0;
    }).length"""
    async with browser() as running:
        async with opened(running, served) as page:
            await filled(page)
            assert await page.page.evaluate(moving) > 0
        async with opened(running, served, still=True) as page:
            await filled(page)
            assert await page.page.evaluate(moving) == 0


async def test_a_node_that_is_too_busy_is_asked_less_and_not_called_lost(
    said: Said, served: str
) -> None:
    async with browser() as running, opened(running, served) as page:
        await filled(page)
        said.refuse["v1/peers"] = (503, {})
        said.refuse["v1/headers"] = (500, {})
        await page.page.wait_for_timeout(4500)
        assert not await page.page.locator("#lost").is_visible()
        assert await page.page.locator("#peers tbody tr").count() == 5
        said.refuse["v1/status"] = (429, {"Retry-After": "3"})
        await page.page.wait_for_timeout(2500)
        before = said.asked.count("v1/status")
        await page.page.wait_for_timeout(2000)
        assert said.asked.count("v1/status") <= before + 1
        assert not await page.page.locator("#lost").is_visible()
        state = await page.page.locator("#connection").get_attribute("data-state")
        assert state in ("polling", "late")  # there are no events here


async def test_the_bar_says_how_far_and_how_long(said: Said, served: str) -> None:
    said.sync = sync(
        phase="blocks",
        start_height=0,
        current_height=31_256,
        header_height=60_000,
        target_height=100_000,
        progress=0.31256,
        blocks_per_second=1234.5,
        eta=192.0,
    )
    async with browser() as running, opened(running, served) as page:
        await filled(page)
        assert await page.page.locator("#sentence").inner_text() == (
            "Syncing: block 31,256 of 100,000"
        )
        words = (await page.page.locator("#sync-figures").inner_text()).replace("\u00a0", " ")
        assert "31.2 %" in words
        assert "1,235 blocks/s, 3 min 12 s to go" in words
        bar = page.page.get_by_role("progressbar")
        assert await bar.get_attribute("aria-valuenow") == "31"
        shares = await page.page.evaluate(
            "[...document.querySelectorAll('.bar i')].map((i) => i.style.width)"
        )
        assert shares == ["60%", "31.256%"]
        said.sync = sync()
        await page.until("() => document.getElementById('sync').hidden")
        assert await page.page.locator("#sentence").inner_text() == (
            f"Following the chain, at block {HEIGHT:,}"
        )


@pytest.mark.parametrize("alone", [True, False], ids=["alone", "followed"])
async def test_rates_are_those_of_the_head_where_no_events_come(
    said: Said, served: str, alone: bool
) -> None:
    """As for one listener too many; and for a node that makes the blocks by itself."""
    said.block_time = 1
    if alone:
        said.peers, said.producing = [], True
        said.sync = sync(
            phase="waiting", waiting=None, blocks_per_second=0.0, transactions_per_second=0.0
        )
    async with browser() as running, opened(running, served) as page:
        await filled_blocks(page)
        expected = "Making blocks alone" if alone else "Following the chain"
        assert (await page.page.locator("#sentence").inner_text()).startswith(expected)
        for _ in range(4):
            said.height += 3
            await page.page.wait_for_timeout(2000)
        blocks, transactions = await peaks(page)
        assert 0.5 < blocks < 5
        assert transactions > 0.5
        said.height += 40  # of which the last twelve are told
        await page.page.wait_for_timeout(4500)
        assert (await peaks(page))[0] > 5


RECORDED = """async (steps) => {
    const { Recorder } = await import(steps.source);
    let now = 0;
    performance.now = () => 1000 * now;
    const heard = [];
    const store = {
        subscribe: (listener) => heard.push(listener), counts: new Map(), headers: [],
        head: null, status: { block_time: 2 }, sync: { phase: "following" }, traffic: null,
    };
    const recorder = new Recorder(store);
    for (const [at, height] of steps.heads) {
        now = at;
        store.head = { height, hash: String(height), transactions: 0 };
        heard[0](store, new Set(["status", "head", "sync"]));
    }
    return recorder.blocks.samples.map(({ values }) => values[0]);
}"""


async def test_what_came_while_the_node_said_nothing_is_no_rate(served: str) -> None:
    """A laptop was asleep for an hour: the blocks of that hour did not come at once."""
    heads = [(at, at // 2) for at in range(0, 60, 2)]
    heads += [(at, at // 2) for at in range(3660, 3720, 2)]
    async with browser() as running, opened(running, served) as page:
        source = await page.page.evaluate(
            "performance.getEntriesByType('resource').map((r) => r.name)"
            ".find((name) => name.includes('history'))"
        )
        rates = await page.page.evaluate(RECORDED, {"heads": heads, "source": source})
    assert len(rates) > 25
    assert max(rates) < 1


async def test_who_waits_for_peers_is_told_so_once(said: Said, served: str) -> None:
    said.peers = []
    said.sync = sync(phase="waiting", waiting="no peers are connected")
    async with browser() as running, opened(running, served) as page:
        await page.until("() => document.getElementById('sentence').innerText.includes('peers')")
        assert await page.page.locator("#detail").inner_text() == "No peers are connected."
