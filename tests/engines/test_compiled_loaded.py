"""The compiled engines are there, and in use unless the pure ones were asked for."""

from __future__ import annotations

import importlib
import os
from importlib.machinery import EXTENSION_SUFFIXES, ExtensionFileLoader

import pytest

ENGINES = ("framing", "layout", "headers", "merkle", "signatures")


@pytest.mark.parametrize("name", ENGINES)
def test_the_compiled_engine_is_machine_code(name: str) -> None:
    module = importlib.import_module(f"moderntensor._ext.{name}")
    assert module.__spec__ is not None
    assert isinstance(module.__spec__.loader, ExtensionFileLoader)
    assert str(module.__file__).endswith(tuple(EXTENSION_SUFFIXES))


@pytest.mark.parametrize("name", ENGINES)
def test_the_twins_offer_the_same_names(name: str) -> None:
    pure = importlib.import_module(f"moderntensor._pure.{name}")
    compiled = importlib.import_module(f"moderntensor._ext.{name}")
    for exported in pure.__all__:
        assert hasattr(compiled, exported)


def test_the_backend_uses_one_side_only() -> None:
    from moderntensor import backend

    pure = os.environ.get("MODERNTENSOR_PURE", "") not in ("", "0")
    expected, package = ("pure", "_pure") if pure else ("compiled", "_ext")
    assert expected == backend.NAME
    for name in ENGINES:
        assert getattr(backend, name).__name__ == f"moderntensor.{package}.{name}"
