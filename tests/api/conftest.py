"""A node that serves HTTP on loopback, and a peer of it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from helpers.http_scene import Scene, scene


@pytest.fixture
async def served() -> AsyncIterator[Scene]:
    """One node without peers, with a chain of ten blocks, and its API."""
    async with scene() as made:
        yield made


@pytest.fixture
async def pair() -> AsyncIterator[Scene]:
    """The same, following a peer."""
    async with scene(peer=True) as made:
        yield made
