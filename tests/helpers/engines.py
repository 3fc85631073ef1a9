"""The engines of one twin, and the fixture that runs a test or a benchmark on both."""

from __future__ import annotations

import importlib
from types import ModuleType

import pytest


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
