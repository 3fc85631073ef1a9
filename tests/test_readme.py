"""What README.md shows is so: its lines, its links, its example."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.command import PATIENCE, ROOT, environment, running, succeed

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
    (shown,) = blocks("text")
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


def test_the_example_runs_against_the_node_beside_it(tmp_path: Path) -> None:
    """As written, but for the ports."""
    (serve,) = (block for block in blocks("sh") if "moderntensor node" in block)
    aside, new, node = (shlex.split(line) for line in serve.splitlines())
    assert aside[0] == "mkdir"
    assert aside[-2:] == ["cd", aside[1]]  # tmp_path here: any place but the clone
    assert new.pop(0) == node.pop(0) == "moderntensor"
    succeed(*new, cwd=tmp_path)
    with running(*(word.replace("30304", "0") for word in node), cwd=tmp_path) as server:
        port = server.line_with("listening on").split(":")[1].split(",")[0]
        (example,) = blocks("python")
        for written, here in (("30304", port), ("30303", "0")):
            assert example.count(written) == 1
            example = example.replace(written, here)
        result = subprocess.run(
            [sys.executable, "-W", "error", "-c", example],
            cwd=tmp_path,
            env=environment(),
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    assert [line.split()[:2] for line in lines[:1000]] == [
        ["block", str(n)] for n in range(1, 1001)
    ]
    assert lines[1000] == "sync complete"
    progress, rate = map(float, lines[1001].split())
    assert progress == 1.0
    assert rate > 0
    assert {path.name for path in tmp_path.iterdir()} == {"net", "my-chain", "node.key"}
