"""The status page in a real Chromium, and what a test wants to know of it."""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final, Literal
from urllib.parse import urlsplit

import pytest

Theme = Literal["light", "dark"]
ARGUMENTS: Final = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-dev-shm-usage",
)
PATIENCE: Final = 30_000.0  # milliseconds that a condition on the page may take


def find_chromium() -> str | None:
    """Where the browser is; CHROMIUM names another."""
    return os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")


@dataclass(slots=True)
class Opened:
    """One open page, and what it has said and asked for."""

    page: Any
    base: str
    errors: list[str] = field(default_factory=list)
    """Of the console, with exceptions that nobody caught."""
    outside: list[str] = field(default_factory=list)
    """Requests to anything but the node."""

    async def value(self, name: str) -> str:
        """What the node gave for a figure, as the page holds it."""
        found: str = await self.page.locator(f'data[data-field="{name}"]').first.get_attribute(
            "value"
        )
        return found

    async def until(self, condition: str, argument: object = None) -> None:
        """Wait for a JavaScript expression, or function of the argument, to be true."""
        await self.page.wait_for_function(condition, arg=argument, timeout=PATIENCE)

    async def until_value(self, name: str, wanted: object) -> None:
        """Wait until a figure has a value."""
        await self.until(
            '([name, value]) => document.querySelector(`data[data-field="${name}"]`)'
            "?.getAttribute('value') === value",
            [name, str(wanted)],
        )

    async def until_following(self) -> None:
        """Wait until all of it is filled and the sync is over."""
        await self.until("() => /^(Following|Making)/.test(document.title)")
        await self.until("() => document.querySelectorAll('#blocks tbody tr').length > 0")


@asynccontextmanager
async def browser() -> AsyncIterator[Any]:
    """A headless Chromium; the test is skipped where there is none."""
    api = pytest.importorskip("playwright.async_api", reason="playwright is not installed")
    chromium = find_chromium()
    if chromium is None:
        pytest.skip("no Chromium here (CHROMIUM names one that is elsewhere)")
    async with api.async_playwright() as playwright:
        running = await playwright.chromium.launch(
            executable_path=chromium, args=[*ARGUMENTS], headless=True
        )
        try:
            yield running
        finally:
            await running.close()


@asynccontextmanager
async def opened(
    running: Any,
    base: str,
    *,
    theme: Theme = "light",
    width: int = 1280,
    still: bool = False,
    before: Callable[[Any], Awaitable[None]] | None = None,
) -> AsyncIterator[Opened]:
    """The page at `base`, in a context of its own; `still` prefers reduced motion. `before` gets
    the page before it asks for anything."""
    context = await running.new_context(
        viewport={"width": width, "height": 900},
        color_scheme=theme,
        reduced_motion="reduce" if still else "no-preference",
    )
    page = await context.new_page()
    found = Opened(page, base)
    page.on("console", lambda said: said.type == "error" and found.errors.append(said.text))
    page.on("pageerror", lambda error: found.errors.append(f"not caught: {error}"))
    page.on(
        "request",
        lambda request: (
            urlsplit(request.url).netloc != urlsplit(base).netloc
            and found.outside.append(request.url)
        ),
    )
    try:
        if before is not None:
            await before(page)
        await page.goto(base)
        yield found
    finally:
        await page.unroute_all(behavior="ignoreErrors")
        await context.close()
