"""The status page's files, read once: what is served is what the package has, by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Final

from .limits import PAGE_FILES

__all__ = ["INDEX", "PageFile", "load_page"]

INDEX: Final = "index.html"
DIRECTORY: Final = Path(__file__).parent / "page"
_TYPES: Final = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}


@dataclass(frozen=True, slots=True)
class PageFile:
    """One file."""

    content: bytes
    media_type: str
    etag: str


def load_page(directory: Path = DIRECTORY) -> Mapping[str, PageFile]:
    """All files of the page by name; those of other types are left out."""
    found: dict[str, PageFile] = {}
    for path in sorted(directory.iterdir())[:PAGE_FILES] if directory.is_dir() else ():
        media_type = _TYPES.get(path.suffix)
        if media_type is not None and path.is_file():
            content = path.read_bytes()
            found[path.name] = PageFile(
                content, media_type, f'"{sha256(content).hexdigest()[:32]}"'
            )
    return found
