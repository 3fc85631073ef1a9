"""The arrows of docs/architecture.md: imports run downward only."""

from __future__ import annotations

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import moderntensor

PACKAGE = Path(moderntensor.__file__).parent

# Each room with the rooms that it may import, besides itself. What is under it is listed whole.
FLOORS = [
    "errors",
    "engines",
    "backend",
    "wire",
    "storage",
    "blockchain",
    "client",
    "network",
    "node",
    "metrics",
    "api",
    "simulation",
    "cli",
]
# Usable by every floor above them; they import nothing but errors.
ASIDE = {
    "awaiting": set(),
    "runtime": {"errors"},
    "config": {"errors", "_version"},
    "_version": set(),
}
MAX_LINES = 450


def room_of(module: str) -> str:
    """The floor that a dotted module name below the package belongs to."""
    head = module.split(".", maxsplit=1)[0]
    if head in ("_pure", "_ext"):
        return "engines"
    return head


def modules() -> list[Path]:
    return sorted(p for p in PACKAGE.rglob("*.py"))


def imported(path: Path) -> list[tuple[int, str]]:
    """(line, dotted name below the package) of every import of our own modules in a file."""
    package = (*path.relative_to(PACKAGE).parts[:-1],)
    found: list[tuple[int, str]] = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            if node.level:
                base = package[: len(package) - (node.level - 1)]
                name = ".".join([*base, *(node.module or "").split(".")]).strip(".")
            elif node.module and node.module.split(".")[0] == "moderntensor":
                name = node.module.partition(".")[2]
            else:
                continue
            if name:
                found.append((node.lineno, name))
            else:
                found.extend((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.Import):
            found.extend(
                (node.lineno, alias.name.partition(".")[2])
                for alias in node.names
                if alias.name.split(".")[0] == "moderntensor" and "." in alias.name
            )
    return found


def test_every_module_stands_on_a_known_floor() -> None:
    rooms = {room_of(".".join(p.relative_to(PACKAGE).with_suffix("").parts)) for p in modules()}
    assert rooms - {"__init__", "__main__"} <= {*FLOORS, *ASIDE}


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_run_downward(path: Path) -> None:
    own = room_of(".".join(path.relative_to(PACKAGE).with_suffix("").parts))
    if own in ("__init__", "__main__"):
        return
    if own in ASIDE:
        allowed = ASIDE[own]
    else:
        allowed = {own, *ASIDE, *FLOORS[: FLOORS.index(own)]}
        if own not in ("backend", "engines"):
            allowed -= {"engines"}  # only backend.py chooses between the twins
    for line, name in imported(path):
        assert room_of(name) in allowed, f"{path}:{line} imports {name} against the arrows"


def test_the_parts_of_a_node_do_not_know_the_node() -> None:
    """No circles in network/, not even for the sake of annotations."""
    files = {f"network.{path.stem}": path for path in (PACKAGE / "network").glob("*.py")}
    order = TopologicalSorter(
        {name: {used for _, used in imported(path)} & set(files) for name, path in files.items()}
    )
    order.prepare()  # raises CycleError
    assert order.is_active()


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_no_file_outgrows_the_head(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= MAX_LINES


def test_the_world_is_asked_in_one_place() -> None:
    """Clocks, randomness and entropy come from runtime.py, so that a simulator can replace them.
    Its own, simulation/runtime.py, is the only one to make a generator of a seed."""
    forbidden = {("time", "time"), ("os", "urandom"), ("secrets", None), ("random", None)}
    for path in modules():
        if path.name == "runtime.py" or path.parent.name == "cli":
            continue
        source = path.read_text(encoding="utf-8")
        nodes = list(ast.walk(ast.parse(source)))
        for node in nodes:
            if isinstance(node, ast.Import):
                used = {(alias.name, None) for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                used = {
                    (node.module or "", None),
                    *((node.module or "", a.name) for a in node.names),
                }
            elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                used = {(node.value.id, node.attr)}
            else:
                continue
            typing_only = {("random", None)} if "TYPE_CHECKING" in source else set()
            if used == {("random", None), ("random", "Random")}:
                typing_only = {("random", None)}  # the class, which may be named, not called
            assert not (used & forbidden) - typing_only, f"{path}:{node.lineno}"
        calls = [node.func for node in nodes if isinstance(node, ast.Call)]
        made = [call for call in calls if isinstance(call, ast.Name) and call.id == "Random"]
        assert not made, f"{path}:{made[0].lineno} makes a generator of its own"
