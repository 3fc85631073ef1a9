"""Fixtures that many tests share."""

from __future__ import annotations

import importlib
from types import SimpleNamespace

import pytest

ENGINES = ("framing", "layout", "headers", "merkle")


def load_engines(twin: str) -> SimpleNamespace:
    """All engines of one twin (``"pure"`` or ``"compiled"``), side by side with the other's."""
    package = {"pure": "_pure", "compiled": "_ext"}[twin]
    modules = {n: importlib.import_module(f"moderntensor.{package}.{n}") for n in ENGINES}
    return SimpleNamespace(NAME=twin, **modules)


@pytest.fixture(scope="session", params=["pure", "compiled"])
def engine(request: pytest.FixtureRequest) -> SimpleNamespace:
    """Runs the test once on each twin."""
    return load_engines(request.param)


@pytest.fixture(scope="session")
def twins() -> tuple[SimpleNamespace, SimpleNamespace]:
    """Both twins (pure, compiled), for tests that compare them."""
    return load_engines("pure"), load_engines("compiled")
