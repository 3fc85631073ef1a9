"""What docs/ says of files, tables and packages is so."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

import moderntensor
from moderntensor.blockchain.tables import TABLES

PACKAGE = Path(moderntensor.__file__).parent
ROOT = PACKAGE.parent
ARCHITECTURE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
DEPENDENCIES = (ROOT / "docs" / "dependencies.md").read_text(encoding="utf-8")


def rows(text: str, heading: str) -> list[list[str]]:
    """The cells of the table under a header line that starts so."""
    lines = text[text.index(f"\n{heading}") + 1 :].splitlines()
    table = []
    for line in lines[2:]:
        if not line.startswith("|"):
            break
        table.append([cell.strip() for cell in line.strip("|").split("|")])
    return table


def code(text: str) -> list[str]:
    return re.findall(r"`([^`]+)`", text)


def test_every_table_of_the_chain_is_described_in_order() -> None:
    assert tuple(name for row in rows(ARCHITECTURE, "| Table |") for name in code(row[0])) == TABLES


def test_the_places_are_those_that_there_are() -> None:
    named = {place for row in rows(ARCHITECTURE, "| Place |") for place in code(row[0])}
    missing = [p for p in named if not (PACKAGE / p).exists() and not (ROOT / p).exists()]
    assert not missing
    for path in PACKAGE.iterdir():
        if path.name.startswith("_") or path.name == "py.typed":
            continue
        assert (f"{path.name}/" if path.is_dir() else path.name) in named, path


@pytest.mark.parametrize(
    "room",
    [
        "blockchain",
        "network",
        "network/addressbook",
        "network/gossip",
        "network/sync",
        "simulation",
        "simulation/adversaries",
        "simulation/scenarios",
    ],
)
def test_no_module_of_a_large_room_is_left_out(room: str) -> None:
    said = rows(ARCHITECTURE, f"| In `{room}/` |")
    named = [name for row in said for name in code(row[1])]
    assert sorted(named) == sorted(
        path.stem for path in (PACKAGE / room).glob("*.py") if path.stem != "__init__"
    )


def test_dependencies_are_those_of_pyproject() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    extras = project["project"]["optional-dependencies"]
    declared = {
        "## To run": project["project"]["dependencies"],
        "## To look": [
            requirement.partition(";")[0]
            for extra in ("http", "metrics", "uvloop")
            for requirement in extras[extra]
        ],
        "## To build": project["build-system"]["requires"],
        # Our own extras that it brings have their packages in a section of their own.
        "## To test": [each for each in extras["test"] if not each.startswith("moderntensor")],
        "## To compare": extras["bench"],
        "## To simulate": [*extras["simulation"], *extras["dask"]],
        "## To write": extras["docs"],
        "## To fuzz": [
            requirement.partition(";")[0]  # on which systems is said in words
            for requirement in extras["fuzz"]
        ],
    }
    for heading, packages in declared.items():
        section = DEPENDENCIES[DEPENDENCIES.index(heading) :]
        said = [re.match(r"`([^`]+)` ≥ (\S+)", row[0]) for row in rows(section, "| Package |")]
        assert sorted(f"{m[1]}>={m[2]}" for m in said if m) == sorted(packages), heading
        assert all(said), heading
