"""Fixtures that many tests share."""

from __future__ import annotations

import os

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
