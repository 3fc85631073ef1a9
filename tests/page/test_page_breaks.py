"""The page where the stream of events breaks, and where a node refuses to answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import msgspec
import pytest
from helpers.browser import Opened, Theme, browser, opened
from helpers.forks import ChainMaker
from helpers.http_scene import scene
from helpers.looks import POOR_CONTRAST, TOO_WIDE
from helpers.page_server import HEIGHT, Said, header, hexed, peer, saying, sync
from helpers.sync_nodes import until

from moderntensor.client import model

pytestmark = pytest.mark.long
STATE = "() => document.getElementById('connection').dataset.state === '{}'"
LATE = "(of) => [...document.querySelectorAll(`[data-of=${of}]`)].every((mark) => !mark.hidden)"
CURRENT = "() => [...document.querySelectorAll('[data-of]')].every((mark) => mark.hidden)"


@pytest.fixture
async def said() -> Said:
    return Said(
        peers=[peer(n, outbound=True, latency=0.01, agent="moderntensor/0.7.0") for n in range(3)]
    )


@pytest.fixture
async def served(said: Said) -> AsyncIterator[str]:
    async with saying(said) as base:
        yield base


def told(event: model.Event, number: int, name: str | None = None) -> bytes:
    kind = name or event.__struct_config__.tag
    return b"id: aa-%d\nevent: %s\ndata: %s\n\n" % (
        number,
        str(kind).encode(),
        msgspec.json.encode(event),
    )


def head(height: int) -> model.HeadEvent:
    return model.HeadEvent(header=header(height), transactions=5)


def reorganised(to_height: int) -> model.ReorganisationEvent:
    return model.ReorganisationEvent(
        from_height=to_height - 1,
        from_hash=hexed("left"),
        to_height=to_height,
        to_hash=hexed(to_height),
        fork_height=to_height - 3,
    )


async def filled(page: Opened) -> None:
    await page.until("() => document.querySelectorAll('#blocks tbody tr').length > 0")


async def note(page: Opened) -> str:
    await page.until("() => !document.getElementById('reorganised').hidden")
    text: str = await page.page.locator("#reorganised").inner_text()
    return text.replace("\u00a0", " ")


# --- events ------------------------------------------------------------------------------------


async def test_a_stream_goes_on_where_the_one_before_ended(said: Said, served: str) -> None:
    """Also where nothing but an id had come; and what is old news does not move the head back."""
    said.events = asyncio.Queue()
    async with browser() as running, opened(running, served) as page:
        await filled(page)
        await page.until(STATE.format("live"))
        said.events.put_nowait(b"id: aa-6\n\nid: aa-7\n\n")
        said.events.put_nowait(None)
        await until(lambda: len(said.last_ids) == 2)
        for event in (head(HEIGHT - 30), reorganised(HEIGHT - 3), head(HEIGHT - 3)):
            said.events.put_nowait(told(event, 8 + said.events.qsize()))
        assert "while this page heard nothing" in await note(page)
        assert await page.value("head.height") == str(HEIGHT)
        said.events.put_nowait(None)
        await until(lambda: len(said.last_ids) == 3)
        assert said.last_ids == [None, "aa-7", "aa-10"]
        await page.until(STATE.format("live"))
        said.height += 1
        said.events.put_nowait(told(reorganised(HEIGHT + 1), 11))
        await page.until(
            "() => !document.getElementById('reorganised').innerText.includes('nothing')"
        )
        await page.until_value("head.height", HEIGHT + 1)
        assert page.errors == []


async def test_events_that_say_little_or_come_in_pieces_break_nothing(
    said: Said, served: str
) -> None:
    said.events = asyncio.Queue()
    nothing = told(model.MissedEvent(events=0), 3)
    odd = (
        b"id: aa-1\n\n",
        nothing * 3,
        b": a comment\n\n\n\n",
        b"id: aa-4\n\n" * 5,
        told(model.MissedEvent(events=7), 5, name="of a newer node"),
        b"id: aa-6\nevent: head\n\n",  # no data: not an event
        b"data: without a name\n\n",
        b"id: nobody could\xc2\xa0send this back\n\n",
        nothing.replace(b"\n", b"\r\n"),
    )
    async with browser() as running, opened(running, served) as page:
        await filled(page)
        await page.until(STATE.format("live"))
        for data in odd:
            said.events.put_nowait(data)
        whole = told(head(HEIGHT + 1), 9).replace(b"\n", b"\r\n")
        before = said.asked.count("v1/headers")
        for at in range(0, len(whole), 7):
            said.events.put_nowait(whole[at : at + 7])
        await page.until(
            "(n) => document.querySelector('#blocks [data-field=\"height\"]').value === String(n)",
            HEIGHT + 1,
        )
        said.height += 1
        await until(lambda: said.asked.count("v1/headers") > before)  # something was missed
        await page.until(STATE.format("live"))
        said.events.put_nowait(b"id: aa-12\n")  # cut off before it was complete
        said.events.put_nowait(None)
        await until(lambda: len(said.last_ids) == 2)
        assert said.last_ids == [None, "aa-9"]
        assert page.errors == []


async def test_a_stream_that_is_no_stream_is_left_alone(said: Said, served: str) -> None:
    """What does not end is given up, and what is not JSON; the questions go on."""
    said.events = asyncio.Queue()
    async with browser() as running, opened(running, served) as page:
        await filled(page)
        said.events.put_nowait(b"data: " + b"x" * (1 << 21))
        await page.until(STATE.format("polling"))
        said.events.put_nowait(None)
        await until(lambda: len(said.last_ids) == 2)
        await page.until(STATE.format("live"))
        said.events.put_nowait(b"event: head\ndata: {\n\n")
        await page.until(STATE.format("polling"))
        said.events.put_nowait(None)
        said.height += 1
        await page.until_value("head.height", HEIGHT + 1)
        assert page.errors == []


async def test_a_reorganisation_during_a_break_is_told() -> None:
    """By a real node, which remembers what it told nobody."""
    maker = ChainMaker()
    async with scene(config=maker.config, blocks=0) as made, browser() as running:
        events = made.api._context.events
        for block in maker.run(maker.genesis, 3):
            made.node.chain.import_block(block)
        async with opened(running, made.api.url + "/") as page:
            await filled(page)
            await page.until(STATE.format("live"))
            for listener in tuple(events.listeners):
                listener.leave()
            longer = maker.run(maker.genesis, 5, gap=2)
            for block in longer:
                made.node.chain.import_block(block)
            text = await note(page)
            assert "while this page heard nothing" in text
            assert "(3 blocks undone) for one up to block" in text
            await page.until_value("head.height", 5)
            shown = page.page.locator("#blocks tbody tr").first
            assert await shown.get_attribute("data-hash") == longer[-1].hash.hex()
            assert page.errors == []


# --- refusals ----------------------------------------------------------------------------------


async def test_what_is_not_answered_any_more_is_said_to_be_old(said: Said, served: str) -> None:
    said.events = asyncio.Queue()
    async with browser() as running, opened(running, served) as page:
        await filled(page)
        await page.until(STATE.format("live"))
        await page.until("() => document.querySelectorAll('#peers tbody tr').length === 3")
        assert await page.page.evaluate(CURRENT)
        for path in ("sync", "peers", "headers", "traffic"):
            said.refuse[f"v1/{path}"] = (503, {})
        said.height += 40  # of which no event tells
        for what in ("sync", "peers", "headers", "traffic"):
            await page.until(LATE, what)
        marks = await page.page.locator("[data-of]").all_inner_texts()
        assert len(marks) == 5
        assert all("ot current: last answered at " in mark for mark in marks), marks
        spoken = await page.page.locator("#announce").inner_text()
        assert "Not current: " in spoken
        assert "Peers" in spoken
        assert await page.page.get_attribute("#connection", "data-state") == "live"
        assert await page.page.locator("#peers tbody tr").count() == 3
        said.refuse.clear()
        await page.until(CURRENT)


@pytest.mark.parametrize(("theme", "width"), [("light", 360), ("dark", 800), ("dark", 1440)])
async def test_how_old_it_is_can_be_read(said: Said, served: str, theme: Theme, width: int) -> None:
    said.sync = sync(phase="blocks", progress=0.5, target_height=2 * HEIGHT, eta=65.0)
    async with browser() as running, opened(running, served, theme=theme, width=width) as page:
        await filled(page)
        for path in ("sync", "peers", "headers", "traffic"):
            said.refuse[f"v1/{path}"] = (503, {})
        said.height += 40
        for what in ("sync", "peers", "headers", "traffic"):
            await page.until(LATE, what)
        assert (await page.page.evaluate(POOR_CONTRAST))["found"] == []
        assert await page.page.evaluate(TOO_WIDE) == []
        # The charts do not take the last value for one of now.
        await page.until(
            "() => [...document.querySelectorAll('.current')].every((each) =>"
            " each.innerText.includes('–'))"
        )


async def test_what_was_never_answered_is_said_to_be_so(said: Said, served: str) -> None:
    said.refuse["v1/peers"] = (503, {})
    async with browser() as running, opened(running, served) as page:
        await filled(page)
        await page.until(LATE, "peers")
        marks = await page.page.locator('[data-of="peers"]').all_inner_texts()
        assert marks == ["Not current: not answered yet"] * 2


async def test_who_is_told_to_wait_keeps_what_was_answered_and_says_how_old_it_is(
    said: Said, served: str
) -> None:
    said.refuse["v1/traffic"] = (429, {"Retry-After": "1"})
    async with browser() as running, opened(running, served) as page:
        await filled(page)  # though another question was refused
        said.peers = said.peers[:1]
        await page.until("() => document.querySelectorAll('#peers tbody tr').length === 1")
        await page.until(LATE, "traffic")
        assert await page.page.evaluate("() => document.querySelector('[data-of=peers]').hidden")
        said.refuse["v1/status"] = (429, {"Retry-After": "20"})
        await page.until(STATE.format("late"))
        assert "Not current" in await page.page.locator("#connection").inner_text()
        assert not await page.page.locator("#lost").is_visible()
        await page.until(LATE, "peers")


async def test_trying_now_while_a_question_fails_asks_again_at_once(
    said: Said, served: str
) -> None:
    said.hold = asyncio.Event()
    said.hold.set()
    async with browser() as running, opened(running, served) as page:
        await filled(page)
        said.refuse["v1/status"] = (503, {})
        await page.until("() => document.getElementById('lost-text').innerText.includes('Next')")
        said.hold.clear()
        asked = said.asked.count("v1/status")
        await page.page.locator("#retry").click()
        await until(lambda: said.asked.count("v1/status") > asked)
        await page.page.evaluate(
            """() => {
              const text = document.getElementById('lost-text');
              window.said = [];
              new MutationObserver(() => window.said.push(text.textContent))
                .observe(text, { childList: true, characterData: true, subtree: true });
            }"""
        )
        await page.page.locator("#retry").click()
        first, said.hold = said.hold, asyncio.Event()
        asked = said.asked.count("v1/status")
        first.set()
        await until(lambda: said.asked.count("v1/status") > asked)
        waited = await page.page.evaluate("window.said.filter((each) => each.includes('Next'))")
        assert waited == []
        said.refuse.clear()
        said.hold.set()
        await page.until("() => document.getElementById('lost').hidden")


async def test_a_node_that_asks_for_patience_is_not_said_to_be_tried(
    said: Said, served: str
) -> None:
    async with browser() as running, opened(running, served) as page:
        await filled(page)
        said.refuse["v1/status"] = (503, {})
        await page.until("() => !document.getElementById('lost').hidden")
        said.refuse["v1/status"] = (429, {"Retry-After": "9999999999"})  # a minute is obeyed
        await page.until(
            "() => /429.*Next try in .*[45]\\d.s/.test("
            "document.getElementById('lost-text').innerText)"
        )
        said.refuse.clear()
        await page.page.locator("#retry").click()
        await page.until("() => document.getElementById('lost').hidden")
