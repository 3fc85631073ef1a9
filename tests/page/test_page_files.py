"""The page's files, without a browser: they keep its own rules, and they are packaged."""

from __future__ import annotations

import re
import tomllib
from fnmatch import fnmatch
from pathlib import Path

import pytest

import moderntensor

PAGE = Path(moderntensor.__file__).parent / "api" / "page"
ROOT = PAGE.parents[2]
FILES = sorted(PAGE.iterdir())
SCRIPTS = {path.name: path.read_text(encoding="utf-8") for path in FILES if path.suffix == ".js"}
INDEX = (PAGE / "index.html").read_text(encoding="utf-8")
STYLE = (PAGE / "style.css").read_text(encoding="utf-8")
MAX_LINES = 450
SVG_NAMESPACE = "http://www.w3.org/2000/svg"
MARKUP = (
    "innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "DOMParser", "setHTMLUnsafe",
    "createContextualFragment", "eval(", "new Function", "srcdoc",
)  # fmt: skip


def test_nothing_is_inline_and_nothing_comes_from_outside() -> None:
    """What the content security policy would refuse is not there to be refused."""
    assert re.findall(r"<script(?![^>]*\bsrc=)", INDEX) == []
    assert re.findall(r"<style|\sstyle=|\son\w+=", INDEX) == []
    for path in FILES:
        text = path.read_text(encoding="utf-8").replace(SVG_NAMESPACE, "")
        assert re.findall(r"https?:|//[\w-]+\.\w|@import|url\(", text) == [], path.name


@pytest.mark.parametrize("name", SCRIPTS)
def test_no_script_makes_markup_of_text(name: str) -> None:
    assert [word for word in MARKUP if word in SCRIPTS[name]] == []


def test_every_file_is_used_and_every_used_file_is_there() -> None:
    used, todo = {"index.html"}, re.findall(r'(?:href|src)="page/([^"]+)"', INDEX)
    while todo:
        name = todo.pop()
        if name not in used:
            used.add(name)
            todo += re.findall(r'from "\./([^"]+)"', SCRIPTS.get(name, ""))
    assert used == {path.name for path in FILES}


def test_every_import_is_exported() -> None:
    for name, text in SCRIPTS.items():
        for names, source in re.findall(r'import \{([^}]+)\} from "\./([^"]+)"', text):
            for each in re.findall(r"\w+", names):
                pattern = rf"export (?:async )?(?:function|const|class) {each}\b"
                assert re.search(pattern, SCRIPTS[source]), f"{name}: {each} of {source}"


def test_every_place_that_a_script_fills_is_there() -> None:
    ids = re.findall(r'\bid="([^"]+)"', INDEX)
    assert len(ids) == len(set(ids))
    asked = {each for text in SCRIPTS.values() for each in re.findall(r'byId\("([^"]+)"\)', text)}
    assert asked <= set(ids)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_no_file_is_long(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= MAX_LINES


def test_wheel_and_sdist_carry_all_of_it() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    patterns = project["tool"]["setuptools"]["package-data"]["moderntensor.api"]
    manifest = (ROOT / "MANIFEST.in").read_text(encoding="utf-8")
    said = re.search(r"^recursive-include moderntensor/api/page (.+)$", manifest, re.MULTILINE)
    assert said is not None
    for path in FILES:
        assert any(fnmatch(f"page/{path.name}", pattern) for pattern in patterns), path.name
        assert any(fnmatch(path.name, pattern) for pattern in said[1].split()), path.name


# --- colours -----------------------------------------------------------------------------------


def palette(block: str) -> dict[str, str]:
    found = re.findall(r"--([\w-]+):\s*(#[0-9a-fA-F]{6})\s*;", block)
    return {name: value.lower() for name, value in found}


def themes() -> dict[str, dict[str, str]]:
    light, dark = re.findall(r":root \{(.*?)\}", STYLE, re.DOTALL)
    return {"light": palette(light), "dark": {**palette(light), **palette(dark)}}


def luminance(colour: str) -> float:
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_contrast(theme: str) -> None:
    """WCAG 2.2 AA: 4.5 for text, 3 for what is drawn and for the focus."""
    colours = themes()[theme]
    for text in ("ink", "soft", "good", "bad"):
        for ground in ("ground", "card", "lit"):
            assert contrast(colours[text], colours[ground]) >= 4.5, (text, ground)
    for text, ground in [
        ("ink", "warn-ground"), ("warn", "warn-ground"),
        ("ink", "bad-ground"), ("bad", "bad-ground"),
    ]:  # fmt: skip
        assert contrast(colours[text], colours[ground]) >= 4.5, (text, ground)
    for drawn in ("first", "second", "focus"):
        for ground in ("ground", "card"):
            assert contrast(colours[drawn], colours[ground]) >= 3, (drawn, ground)


def test_nothing_on_the_page_moves_for_ever() -> None:
    # One endless animation of a dot costs a browser without a GPU a fifth of a core.
    assert "infinite" not in STYLE
