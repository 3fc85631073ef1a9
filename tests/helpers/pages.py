"""Pages of documentation, as blocks of code and what is to be done with each.

Says it by a comment on the line above the fence (docs/testing.md has the list), and imports nothing
but the standard library, so that a page can be followed where only the package is installed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

SHELL = "sh"
CONSOLE = "console"
PYTHON = "python"
DATA = ("json", "toml", "yaml", "ini")
TEXT = "text"
KINDS = (SHELL, CONSOLE, PYTHON, *DATA, TEXT)
MIN_REASON = 12  # characters of a reason that says something

_FENCE = re.compile(r"^(?P<indent> *)(?P<fence>`{3,}|~{3,})(?P<info>.*)$")
_MARK = re.compile(r"^ *<!-- docs: (.*?) -->$")
_BACKGROUND = re.compile(r'background, until "([^"]+)"')
_STOP = re.compile(r'stop "([^"]+)"')


class PageError(Exception):
    """A page that cannot be followed, or that is not so; says where."""


@dataclass(frozen=True)
class Block:
    """One fenced block, or a mark that stands alone (`stop`; `kind` is empty then)."""

    page: str
    line: int  # of the fence, from 1
    kind: str
    text: str
    skipped: str | None = None  # why it is not run
    until: str | None = None  # it goes on; a line of its output with this says that it is there
    output: bool = False  # what the block before printed
    continues: bool = False
    file: str | None = None
    exit: int = 0
    stop: str | None = None  # ends what runs in the background and has this in its text

    @property
    def where(self) -> str:
        return f"{self.page}:{self.line}"


@dataclass(frozen=True)
class Page:
    name: str
    blocks: tuple[Block, ...]
    long: bool

    @property
    def skipped(self) -> list[Block]:
        return [block for block in self.blocks if block.skipped is not None]


def read_page(path: Path, name: str | None = None) -> Page:
    """All of its blocks in order. PageError for a fence without an end, an unknown kind or mark, a
    mark that is above no block, an exception without a reason."""
    name = name or path.name
    lines = path.read_text(encoding="utf-8").splitlines()
    blocks: list[Block] = []
    long = False
    marks: list[str] = []
    number = 0
    while number < len(lines):
        line = lines[number]
        number += 1
        where = f"{name}:{number}"
        if mark := _MARK.match(line):
            if mark[1] == "long":
                long = True
            elif stop := _STOP.fullmatch(mark[1]):
                blocks.append(Block(name, number, "", "", stop=stop[1]))
            else:
                marks.append(mark[1])
            continue
        fence = _FENCE.match(line)
        if fence is None:
            if marks:
                raise PageError(f"{where}: {marks[-1]!r} is not right above a block")
            if "<!-- docs:" in re.sub(r"`[^`]*`", "", line):
                raise PageError(f"{where}: a mark has its line to itself")
            continue
        start = number
        end = re.compile(rf"^ *{fence['fence']}[{fence['fence'][0]}]* *$")
        while number < len(lines) and not end.match(lines[number]):
            number += 1
        if number == len(lines):
            raise PageError(f"{where}: a block without an end")
        cut = len(fence["indent"])
        body = [line[cut:] if not line[:cut].strip() else line for line in lines[start:number]]
        number += 1
        blocks.append(_block(name, start, fence["info"].strip(), "\n".join(body) + "\n", marks))
        marks = []
    if marks:
        raise PageError(f"{name}: {marks[-1]!r} is not right above a block")
    return Page(name, tuple(blocks), long)


def _block(page: str, line: int, kind: str, text: str, marks: list[str]) -> Block:
    where = f"{page}:{line}"
    said: dict[str, object] = {}
    for mark in marks:
        said |= _meaning(where, mark)
    block = Block(page, line, kind, text, **said)  # type: ignore[arg-type]
    if block.skipped is None and block.file is None:
        if kind not in KINDS:
            raise PageError(f"{where}: a block of unknown kind {kind!r}")
        if kind == TEXT and not block.output:
            raise PageError(f"{where}: text is output, a file, or not run with a reason")
        if block.output and kind not in (TEXT, "json"):
            raise PageError(f"{where}: output is text or json")
        if block.continues and kind != PYTHON:
            raise PageError(f"{where}: only python continues")
    return block


def _meaning(where: str, mark: str) -> dict[str, object]:
    """Of one mark, as fields of a block."""
    if mark.startswith("not run"):
        reason = mark.removeprefix("not run").removeprefix(",").strip()
        if len(reason) < MIN_REASON:
            raise PageError(f"{where}: not run, and no reason why")
        return {"skipped": reason}
    if mark in ("output", "continues"):
        return {mark: True}
    if found := _BACKGROUND.fullmatch(mark):
        return {"until": found[1]}
    if found := re.fullmatch(r"file ([\w./-]+)", mark):
        return {"file": found[1]}
    if found := re.fullmatch(r"exit (\d+)", mark):
        return {"exit": int(found[1])}
    raise PageError(f"{where}: unknown mark {mark!r}")


def prompts(text: str) -> tuple[str, str]:
    """Of a console session: the commands, and what they print."""
    commands, output = [], []
    for line in text.splitlines():
        (commands if line.startswith("$ ") else output).append(line.removeprefix("$ "))
    return "\n".join(commands) + "\n", "\n".join(output)
