"""`import moderntensor` stays light, and the library alone needs no extra."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from benchmarks.import_time import brought

ROOT = Path(__file__).resolve().parent.parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]

# What the library works with once it is used, and what comes only with the extras.
LATER = {"asyncio", "ssl", "socket", "lmdb", "cryptography", "Crypto", "typer", "rich", "typing"}
EXTRAS = {"aiohttp", "msgspec", "prometheus_client", "uvloop", "yaml", "matplotlib", "distributed"}


def loaded_by(statement: str) -> set[str]:
    """The modules that are there after it, in a fresh interpreter that `site` has not filled."""
    code = f"{statement}\nimport sys\nprint(*sys.modules)"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path[1:]])}
    result = subprocess.run(
        [sys.executable, "-S", "-c", code],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return set(result.stdout.split())


def test_import_loads_hardly_anything() -> None:
    loaded = loaded_by("import moderntensor")
    assert not loaded & (LATER | EXTRAS)
    ours = {name for name in loaded if name.startswith("moderntensor")}
    assert ours == {"moderntensor", "moderntensor._version"}


def test_a_node_needs_no_extra() -> None:
    loaded = loaded_by("from moderntensor import FullNode, P2PNode, SyncManager")
    assert not loaded & EXTRAS
    assert "asyncio" in loaded  # or the check above could not fail
    assert not loaded & {"typer", "rich"}
    assert not {
        name for name in loaded if re.match(r"moderntensor\.(api|metrics|cli|client)", name)
    }


def test_the_front_door_names_its_types() -> None:
    """mypy reads the imports under TYPE_CHECKING; they and the table of homes are the same."""
    text = (ROOT / "moderntensor" / "__init__.py").read_text(encoding="utf-8")
    homes = dict(re.findall(r'^    "(\w+)": "([\w.]+)",$', text, re.MULTILINE))
    imported = {
        name.strip(): home
        for home, names in re.findall(r"^    from \.([\w.]+) import (.+)$", text, re.MULTILINE)
        for name in names.split(",")
    }
    assert imported == homes


def test_the_docs_count_what_comes_along() -> None:
    direct, every = brought()
    assert len(direct) == len(PROJECT["dependencies"])
    assert direct < every
    text = (ROOT / "docs" / "deployment.md").read_text(encoding="utf-8")
    said = re.search(r"(\d+) packages of its own, (\d+) with what those need", text)
    assert said is not None
    assert int(said[1]) == len(direct)
    # Other versions of them may need one more or less.
    assert int(said[2]) == pytest.approx(len(every), abs=6)


def test_the_version_is_written_in_one_place_and_kept_in_the_changelog() -> None:
    version = re.fullmatch(
        r'VERSION = "(\d+\.\d+\.\d+\S*)"\n',
        (ROOT / "moderntensor" / "_version.py").read_text(encoding="utf-8"),
    )
    assert version is not None
    assert PROJECT["dynamic"] == ["version"]
    for path in (ROOT / "moderntensor").rglob("*.py"):
        if path.name != "_version.py":
            assert version[1] not in path.read_text(encoding="utf-8").split('"'), path
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    headings = re.findall(r"^## \[(.+?)\]", changelog, re.MULTILINE)
    assert headings[0] == "Unreleased"
    assert {"Added"} <= set(re.findall(r"^### (\w+)", changelog, re.MULTILINE))
