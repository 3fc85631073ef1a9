"""Every block of code in README.md and docs/ runs, as the page has it."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from helpers.page_run import ROOT, Following, check_data
from helpers.pages import CONSOLE, PYTHON, SHELL, Page, prompts, read_page

PAGES = {
    str(path.relative_to(ROOT)): read_page(path, str(path.relative_to(ROOT)))
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
}
BASH = shutil.which("bash") or "bash"
# How many blocks of each page are shown and not run; each says why above itself.
NOT_RUN = {
    "README.md": 3,
    "docs/deployment.md": 2,
    "docs/howto/benchmark.md": 1,
    "docs/howto/operate.md": 1,
    "docs/index.md": 1,
    "docs/performance.md": 1,
    "docs/simulation.md": 3,
    "docs/soak.md": 1,
    "docs/testing.md": 1,
    "docs/tutorial.md": 1,
}


def test_exceptions_are_counted() -> None:
    """A page that gets one more has to be argued for here."""
    counted = {name: len(page.skipped) for name, page in PAGES.items() if page.skipped}
    assert counted == NOT_RUN


@pytest.mark.parametrize("name", [name for name, page in PAGES.items() if page.blocks])
def test_blocks_can_be_read(name: str) -> None:
    """Those that are not run too; where the page runs, it runs elsewhere (below)."""
    for block in PAGES[name].blocks:
        check_data(block)
        if block.kind in (SHELL, CONSOLE):
            text = prompts(block.text)[0] if block.kind == CONSOLE else block.text
            result = subprocess.run(
                [BASH, "-n"], input=text, capture_output=True, text=True, check=False
            )
            assert result.returncode == 0, (block.where, result.stderr)


def _runs(page: Page) -> bool:
    return len(page.blocks) > len(page.skipped)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.long] if page.long else [])
        for name, page in PAGES.items()
        if _runs(page)
    ],
)
def test_page(name: str, tmp_path: Path) -> None:
    with Following(tmp_path) as following:
        following.follow(PAGES[name])


def test_python_and_shell_are_there() -> None:
    """The harness is about something: a page without a block of them would pass in silence."""
    kinds = {block.kind for page in PAGES.values() for block in page.blocks if not block.skipped}
    assert {PYTHON, SHELL} <= kinds
