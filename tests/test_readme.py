"""What README.md shows is so: its lines, its links, its output; tests/docs/ follows it."""

from __future__ import annotations

import re

import pytest
from helpers.command import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def blocks(language: str) -> list[str]:
    return [text for kind, text in BLOCKS if kind == language]


@pytest.mark.parametrize(
    "line", ["pip install . && moderntensor demo", "pip install -e '.[test]' && pytest -n auto"]
)
def test_the_two_lines_stand_alone(line: str) -> None:
    assert [line] in [block.splitlines() for block in blocks("sh")]


def test_relative_links_lead_somewhere() -> None:
    targets = re.findall(r"\]\(([^)#]+)\)", README)
    relative = [target for target in targets if "://" not in target]
    assert len(relative) > 5
    for target in relative:
        assert (ROOT / target).exists(), target
        assert (ROOT / target).is_dir() == target.endswith("/"), target


def test_shown_output_is_what_the_demo_prints() -> None:
    """Line by line, numbers aside; test_demo runs the command itself."""
    shown, _ = blocks("text")
    for start in (
        "building 4,200 signed blocks with 8 transfers each, which make 16,800 accounts",
        "each of the 3 nodes has a snapshot of the state at block 4,100",
        "full sync: a fresh node executes all blocks, over TCP, port ",
        "fast sync: another node fetches the state, with proofs, over TCP, port ",
        "live: transactions enter at the last node, those that serve make the blocks",
        "the two syncs",
        "fast sync was ",
        "where the nodes stand",
        "all nodes agree, in every account",
    ):
        assert any(line.startswith(start) for line in shown.splitlines()), start
    heads = re.findall(r"│ +4,205 │ ([0-9a-f]{16}) │ ([0-9a-f]{16}) │", shown)
    assert len(heads) == 5
    assert len(set(heads)) == 1
