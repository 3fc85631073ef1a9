"""The site of the documentation: complete, built without a warning, and alone in the world."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType
from urllib.parse import unquote, urlsplit

import pytest

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
# What a browser fetches by itself, by tag; `a` waits for a click.
FETCHED = {
    ("audio", "src"),
    ("embed", "src"),
    ("iframe", "src"),
    ("image", "href"),
    ("img", "src"),
    ("img", "srcset"),
    ("input", "src"),
    ("link", "href"),
    ("object", "data"),
    ("script", "src"),
    ("source", "src"),
    ("source", "srcset"),
    ("track", "src"),
    ("use", "href"),
    ("video", "poster"),
    ("video", "src"),
}
NOT_FETCHED = {"alternate", "canonical", "next", "prev"}  # kinds of <link>


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, DOCS / "_site" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# --- the sources -------------------------------------------------------------------------------


def test_every_page_is_in_the_navigation() -> None:
    navigation = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").split("\nnav:\n")[1]
    named = re.findall(r"[\w./-]+\.md", navigation)
    there = [str(path.relative_to(DOCS)) for path in DOCS.rglob("*.md")]
    assert sorted(named) == sorted([*there, "reference/command.md"])  # that one is made


@pytest.mark.long
def test_the_page_of_the_command_has_every_option() -> None:
    made = script("command").page()
    for sub in ("chain new", "state check", "tx send", "peers list", "simulate"):
        assert f"# moderntensor {sub}\n" in made, sub
    for option in ("`--validator-key` `PATH`", "`--json`", "`--block` `HEX`"):
        assert option in made, option


def test_the_table_of_settings_is_that_of_the_code() -> None:
    text = (DOCS / "reference" / "settings.md").read_text(encoding="utf-8")
    assert text == script("settings").page(text), "run: python docs/_site/settings.py"


def test_the_pictures_are_those_of_the_script() -> None:
    pictures = script("pictures")
    for name, draw in pictures.PICTURES.items():
        drawn = (DOCS / "images" / f"{name}.svg").read_text(encoding="utf-8")
        assert drawn == str(draw()), "run: python docs/_site/pictures.py"


def test_every_reference_page_is_of_a_module_that_there_is() -> None:
    index = (DOCS / "reference" / "index.md").read_text(encoding="utf-8")
    for path in (DOCS / "reference").glob("*.md"):
        if path.stem in ("index", "settings"):
            continue
        name = f"moderntensor.{path.stem}"
        assert path.read_text(encoding="utf-8") == f"# {name}\n\n::: {name}\n"
        module = ROOT.joinpath(*name.split("."))
        assert module.is_dir() or module.with_suffix(".py").exists(), name
        assert f"]({path.name})" in index


@pytest.mark.parametrize(
    "path",
    [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))],
    ids=lambda p: str(p.relative_to(ROOT)),
)
def test_links_lead_somewhere_in_a_plain_view_too(path: Path) -> None:
    text = re.sub(r"^```.*?^```", "", path.read_text(encoding="utf-8"), flags=re.M | re.S)
    for target in re.findall(r"\]\(([^)\s]+)\)", re.sub(r"`[^`\n]*`", "", text)):
        address = urlsplit(target)
        if address.scheme or not address.path:
            continue
        assert (path.parent / unquote(address.path)).exists(), target


# --- what is built -----------------------------------------------------------------------------


class Links(HTMLParser):
    """What a page makes a browser fetch."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        said = dict(attrs)
        if tag == "link" and set((said.get("rel") or "").split()) & NOT_FETCHED:
            return
        for name, value in attrs:
            if (tag, name) in FETCHED and value:
                self.found.append(value)
            elif name == "style" and value:
                self.found += re.findall(r"url\(([^)]+)\)", value)


@cache
def built(directory: str) -> Path:
    site = Path(directory) / "site"
    result = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(site)],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return site


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if ready := os.environ.get("MODERNTENSOR_SITE"):
        return Path(ready)  # .ci/run has just built it
    pytest.importorskip("material")  # the extra `docs`
    return built(str(tmp_path_factory.mktemp("site")))


def outside(reference: str) -> bool:
    address = urlsplit(reference.strip("'\" "))
    return bool(address.netloc) or address.scheme in ("http", "https", "ws", "wss")


@pytest.mark.long
def test_nothing_is_asked_of_other_hosts(site: Path) -> None:
    pages = list(site.rglob("*.html"))
    assert len(pages) > 40
    for page in pages:
        text = page.read_text(encoding="utf-8")
        links = Links()
        links.feed(text)
        assert links.found
        assert [link for link in links.found if outside(link)] == [], page
        assert 'class="mermaid"' not in text  # the theme would load a library for it
    for sheet in site.rglob("*.css"):
        text = sheet.read_text(encoding="utf-8")
        fetched = re.findall(r"url\(([^)]+)\)|@import\s+([^;]+)", text)
        assert [link for pair in fetched for link in pair if link and outside(link)] == [], sheet
    for picture in site.rglob("*.svg"):
        text = picture.read_text(encoding="utf-8")
        assert re.findall(r"(?:href|src)=[\"']https?:", text) == [], picture


@pytest.mark.long
def test_a_browser_asks_nothing_of_other_hosts(site: Path) -> None:
    """Scripts included, with a search and in both themes; in a real browser, where there is one."""
    browser = os.environ.get("CHROMIUM") or "/usr/bin/chromium"
    sync_api = pytest.importorskip("playwright.sync_api")
    if not Path(browser).exists():
        pytest.skip("no Chromium")
    asked: list[str] = []
    complaints: list[str] = []
    server = subprocess.Popen(
        [sys.executable, "-c", _SERVE, str(site)], stdout=subprocess.PIPE, text=True
    )
    assert server.stdout is not None
    try:
        address = f"http://127.0.0.1:{int(server.stdout.readline())}"
        with sync_api.sync_playwright() as play:
            chromium = play.chromium.launch(executable_path=browser, args=["--no-sandbox"])
            for scheme in ("light", "dark"):
                page = chromium.new_page(color_scheme=scheme)
                page.on("request", lambda request: asked.append(request.url))
                page.on("pageerror", lambda error: complaints.append(str(error)))
                for name in ("index", "tutorial", "architecture", "reference/node"):
                    page.goto(f"{address}/{name}.html", wait_until="networkidle")
                    wanted = {"light": "default", "dark": "slate"}[scheme]
                    assert page.evaluate("document.body.dataset.mdColorScheme") == wanted
                page.locator("input[name=query]").first.click()
                page.keyboard.type("byte_budget")
                page.wait_for_selector(".md-search-result__item")
            chromium.close()
    finally:
        server.terminate()
        server.wait()
        server.stdout.close()
    assert len(asked) > 20
    assert [url for url in asked if urlsplit(url).hostname != "127.0.0.1"] == []
    assert not complaints


_SERVE = """
import functools, http.server, sys
handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=sys.argv[1])
with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
    print(server.server_address[1], flush=True)
    sys.stderr = open("/dev/null", "w")
    server.serve_forever()
"""
