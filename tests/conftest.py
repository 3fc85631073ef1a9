"""Fixtures that many tests share."""

from __future__ import annotations

import importlib
from types import ModuleType

import pytest
from hypothesis import HealthCheck, settings

# A loaded machine must not fail a test: how long an example takes proves nothing.
settings.register_profile(
    "moderntensor", deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("moderntensor")


class Engines:
    """The engines of one twin, ``"pure"`` or ``"compiled"``, importable beside the other's."""

    framing: ModuleType
    layout: ModuleType
    headers: ModuleType
    merkle: ModuleType
    signatures: ModuleType

    def __init__(self, name: str) -> None:
        self.name = name
        self._package = {"pure": "moderntensor._pure", "compiled": "moderntensor._ext"}[name]

    def __getattr__(self, engine: str) -> ModuleType:
        return importlib.import_module(f"{self._package}.{engine}")

    def __repr__(self) -> str:
        return f"<{self.name} engines>"


@pytest.fixture(scope="session", params=["pure", "compiled"])
def engine(request: pytest.FixtureRequest) -> Engines:
    """Runs the test once on each twin."""
    return Engines(request.param)


@pytest.fixture(scope="session")
def twins() -> tuple[Engines, Engines]:
    """Both twins (pure, compiled), for tests that compare them."""
    return Engines("pure"), Engines("compiled")
