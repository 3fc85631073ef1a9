"""Who watches a node: the status page in Chromium, a program that asks and listens as the page
does, and what scrapes its metrics."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Final, Protocol, Self, TypeVar

from moderntensor.client import Client
from moderntensor.client.model import SyncEvent
from moderntensor.errors import ClientError

# As in moderntensor/api/page/live.js; seconds.
ROUND: Final = 2.0
SYNC_FRESH: Final = 1.9
BLOCKS_SHOWN: Final = 12
SLOW: Final = 2  # rounds

ARGUMENTS: Final = ("--no-sandbox", "--disable-gpu", "--disable-background-networking")
PATIENCE: Final = 60.0  # seconds until a page shows what it should
T = TypeVar("T")


class Watcher(Protocol):
    """One who watches, inside its `async with`."""

    async def __aenter__(self) -> Self:
        """Returns when it is watching."""

    async def __aexit__(self, *_: object) -> None:
        """Look away."""

    def begin(self) -> None:
        """Count from now on."""

    @property
    def counts(self) -> dict[str, float]:
        """What it has asked and heard since, and what it was not answered, or not well."""

    async def caught_up(self, height: int) -> None:
        """Returns when it has seen that height; raises if it did not, or saw nothing at all."""


class Asking:
    """What asks a node again and again, and keeps count."""

    def __init__(self, url: str) -> None:
        self.client = Client(url)
        self.answers = 0
        self.slowest = 0.0  # seconds, since `begin`
        self.failures: list[str] = []
        self._before = 0
        self._failed_before = 0
        self._asked = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        """Returns when it has asked all for the first time, which takes a node longest."""
        self._tasks = [asyncio.ensure_future(work) for work in self.work()]
        await asyncio.wait(
            (*self._tasks, asked := asyncio.ensure_future(self._asked.wait())),
            return_when=asyncio.FIRST_COMPLETED,
        )
        asked.cancel()
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.client.close()

    def work(self) -> tuple[Any, ...]:
        """Coroutines that go on until they are cancelled."""
        raise NotImplementedError

    async def ask(self, question: Callable[[], Awaitable[T]]) -> T | None:
        """None where it was not answered."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            answer = await question()
        except ClientError as error:
            self.failures.append(str(error))
            return None
        self.answers += 1
        self.slowest = max(self.slowest, loop.time() - began)
        return answer

    def begin(self) -> None:
        self._before, self._failed_before, self.slowest = self.answers, len(self.failures), 0.0

    @property
    def counts(self) -> dict[str, float]:
        return {
            "answers": self.answers - self._before,
            "failures": len(self.failures) - self._failed_before,
            "slowest": self.slowest,
        }

    async def caught_up(self, height: int) -> None:
        for task in self._tasks:
            if task.done():
                task.result()
        if not self.answers:
            raise RuntimeError(f"{type(self).__name__}: {self.failures[:3] or 'nothing was asked'}")
        status = await self.client.status()  # of a node that has nothing else to do any more
        if status.head.height != height:
            raise RuntimeError(f"the API says height {status.head.height}, not {height}")


class Scraper(Asking):
    """Prometheus, as far as the node can tell."""

    def __init__(self, url: str, every: float) -> None:
        """`every` so many seconds."""
        super().__init__(url)
        self._every = every

    def work(self) -> tuple[Any, ...]:
        return (self._scrape(),)

    async def _scrape(self) -> None:
        while True:
            await self.ask(self.client.metrics)
            self._asked.set()
            await asyncio.sleep(self._every)


class Script(Asking):
    """Asks and listens as the page does while a node syncs."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.events = 0
        self._events_before = 0
        self._heard_sync = 0.0

    def work(self) -> tuple[Any, ...]:
        return self._poll(), self._listen()

    def begin(self) -> None:
        super().begin()
        self._events_before = self.events

    @property
    def counts(self) -> dict[str, float]:
        return {**super().counts, "events": self.events - self._events_before}

    async def caught_up(self, height: int) -> None:
        await super().caught_up(height)
        if not self.events:
            raise RuntimeError("no event came")

    async def _poll(self) -> None:
        number, loop = 0, asyncio.get_running_loop()
        while True:
            await self.ask(self.client.status)
            questions: list[Callable[[], Awaitable[object]]] = [self.client.traffic]
            if loop.time() - self._heard_sync > SYNC_FRESH:
                questions.append(self.client.sync)
            if number % SLOW == 0:
                questions.append(self.client.peers)
                questions.append(partial(self.client.headers, limit=BLOCKS_SHOWN))
            await asyncio.gather(*map(self.ask, questions))
            self._asked.set()
            number += 1
            await asyncio.sleep(ROUND)

    async def _listen(self) -> None:
        loop = asyncio.get_running_loop()
        async with self.client.events() as events:
            async for event in events:
                self.events += 1
                if isinstance(event, SyncEvent):
                    self._heard_sync = loop.time()


class Page:
    """The status page, open in a browser."""

    def __init__(self, browser: Any, url: str) -> None:
        self._browser = browser
        self._url = url
        self.answers = 0
        self.failures: list[str] = []
        self._before = 0
        self._failed_before = 0

    async def __aenter__(self) -> Self:
        self._context = await self._browser.new_context(viewport={"width": 1280, "height": 900})
        try:
            self._page = await self._context.new_page()
            self._page.on("response", self._answered)
            self._page.on("requestfailed", lambda request: self.failures.append(request.url))
            self._page.on("pageerror", lambda error: self.failures.append(str(error)))
            await self._page.goto(self._url)
            await self._page.wait_for_selector(
                '#connection[data-state="live"]', timeout=PATIENCE * 1000
            )
        except BaseException:
            await self._context.close()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._context.close()

    def _answered(self, response: Any) -> None:
        if response.status < 400:
            self.answers += 1
        else:
            self.failures.append(f"{response.url}: {response.status}")

    def begin(self) -> None:
        self._before, self._failed_before = self.answers, len(self.failures)

    @property
    def counts(self) -> dict[str, float]:
        return {
            "answers": self.answers - self._before,
            "failures": len(self.failures) - self._failed_before,
        }

    async def caught_up(self, height: int) -> None:
        await self._page.wait_for_function(
            "(height) => document.querySelector('data[data-field=\"head.height\"]')"
            "?.getAttribute('value') === height",
            arg=str(height),
            timeout=PATIENCE * 1000,
        )


@asynccontextmanager
async def chromium() -> AsyncIterator[tuple[Any, str]]:
    """A headless browser and its name; None and the reason where there is none."""
    found = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    try:
        from playwright.async_api import async_playwright
    except ImportError:
        yield None, "playwright is not installed"
        return
    if found is None:
        yield None, "no Chromium was found; CHROMIUM names one"
        return
    async with async_playwright() as playwright:
        running = await playwright.chromium.launch(executable_path=found, args=[*ARGUMENTS])
        try:
            yield running, f"Chromium {running.version}"
        finally:
            await running.close()
