"""The site of the documentation, made of files whose links work in a plain view of the sources too.

A link that leads out of docs/ (a script in examples/, SECURITY.md, ...) would lead nowhere on the
site: such a file becomes a page of it, and the link is turned there. The page of the command is
made from the command itself (`command.py`).
"""

from __future__ import annotations

import posixpath
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

sys.path.insert(0, str(Path(__file__).resolve().parent))
import command

ROOT = Path(__file__).resolve().parent.parent.parent
DOCS = "docs"
SOURCES = "sources"  # where files from elsewhere stand on the site
LANGUAGES = {".py": "python", ".toml": "toml", ".yaml": "yaml", ".yml": "yaml", ".json": "json"}

_LINK = re.compile(r"(?<=\]\()(?!#|/|[a-z]+:)([^)\s#]+)(?=[)#])")
_FENCED = re.compile(r"(^(?:```|~~~).*?^(?:```|~~~)[^\n]*$)", re.MULTILINE | re.DOTALL)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Make a page of every file outside of docs/ that a page leads to."""
    waiting = [_origin(file.src_uri) for file in files.documentation_pages()]
    known = set(waiting)
    while waiting:
        origin = waiting.pop()
        if not origin.endswith(".md"):
            continue
        for target in _targets((ROOT / origin).read_text(encoding="utf-8"), origin):
            if target in known or _is_inside(target) or not (ROOT / target).exists():
                continue
            known.add(target)
            if files.get_file_from_path(_place(target)) is not None:
                continue  # README.md: the site's front page says the same
            waiting.append(target)
            files.append(File.generated(config, _place(target), content=_content(target)))
    files.append(File.generated(config, command.PLACE, content=command.page()))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn links to such files to their pages."""
    uri = page.file.src_uri
    if uri == command.PLACE:
        return markdown
    origin = _origin(uri)

    def turned(found: re.Match[str]) -> str:
        target = _resolve(origin, found[1])
        if not (ROOT / target).exists():
            return found[1]  # the strict build says so
        return posixpath.relpath(_place(target), posixpath.dirname(uri) or ".")

    parts = _FENCED.split(markdown)
    parts[::2] = [_LINK.sub(turned, part) for part in parts[::2]]
    return "".join(parts)


def _targets(text: str, origin: str) -> Iterator[str]:
    for part in _FENCED.split(text)[::2]:
        for found in _LINK.finditer(part):
            yield _resolve(origin, found[1])


def _resolve(origin: str, target: str) -> str:
    """A path from the top of the tree, of a link in the file `origin`."""
    return posixpath.normpath(posixpath.join(posixpath.dirname(origin), target))


def _is_inside(path: str) -> bool:
    return path.startswith(f"{DOCS}/")


def _place(path: str) -> str:
    """Where on the site a file of the tree stands."""
    if _is_inside(path):
        return path.removeprefix(f"{DOCS}/")
    if path == "README.md":
        return "index.md"  # the same from another side
    if (ROOT / path).is_dir():
        return f"{SOURCES}/{path}/index.md"
    return f"{SOURCES}/{path}" if path.endswith(".md") else f"{SOURCES}/{path}.md"


def _origin(uri: str) -> str:
    """The file of the tree behind a page; the inverse of `_place`."""
    if not uri.startswith(f"{SOURCES}/"):
        return f"{DOCS}/{uri}"
    path = uri.removeprefix(f"{SOURCES}/")
    for candidate in (path, path.removesuffix(".md"), path.removesuffix("/index.md")):
        if (ROOT / candidate).exists():
            return candidate
    return path


def _content(path: str) -> str:
    file = ROOT / path
    if file.is_dir():
        names = sorted(each.name for each in file.iterdir() if each.suffix in (".md", *LANGUAGES))
        return f"# {path}\n\n" + "\n".join(f"- `{name}`" for name in names) + "\n"
    text = file.read_text(encoding="utf-8")
    if path.endswith(".md"):
        return text
    fence = "`" * (2 + max((len(run) for run in re.findall(r"`{3,}", text)), default=1))
    return f"# {path}\n\n{fence}{LANGUAGES.get(file.suffix, 'text')}\n{text}{fence}\n"
