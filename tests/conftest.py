"""Fixtures that many tests share, and on which event loop they run."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping

import pytest
from helpers.engines import Engines, engine
from hypothesis import HealthCheck, settings

__all__ = ["engine", "twins"]

# Hundreds of children would each compile the whole package anew.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

# A loaded machine must not fail a test: how long an example takes proves nothing.
settings.register_profile(
    "moderntensor", deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("moderntensor")


@pytest.fixture(scope="session")
def twins() -> tuple[Engines, Engines]:
    """Both twins (pure, compiled), for tests that compare them."""
    return Engines("pure"), Engines("compiled")


def pytest_addoption(parser: pytest.Parser) -> None:
    """``--loop uvloop`` runs what is awaited in this process on uvloop."""
    parser.addoption("--loop", choices=("asyncio", "uvloop"), default="asyncio", help="event loop")


def pytest_configure(config: pytest.Config) -> None:
    """The plugin asks for loops wherever there is a hook, so that there is one only on demand."""
    if config.getoption("--loop") == "uvloop":
        if not hasattr(config.hook, "pytest_asyncio_loop_factories"):
            raise pytest.UsageError("--loop uvloop needs pytest-asyncio 1.4 or newer")
        config.pluginmanager.register(_OnUvloop())


class _OnUvloop:
    def pytest_asyncio_loop_factories(
        self,
    ) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
        import uvloop

        return {"uvloop": uvloop.new_event_loop}
