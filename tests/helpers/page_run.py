"""Following a page of documentation: its blocks in order, in one directory, in real processes.

As `pages`, it needs nothing but the standard library.
"""

from __future__ import annotations

import configparser
import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import tomllib
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from helpers.pages import CONSOLE, PYTHON, SHELL, TEXT, Block, Page, PageError, prompts

ROOT = Path(__file__).resolve().parent.parent.parent
PATIENCE = 120.0  # seconds that a block may take, and that one in the background takes to be there
ENDING = 20.0  # seconds from SIGTERM to the end
MAX_LINES = 100_000  # of output kept of one block
MAX_SHOWN = 8_000  # characters of it in a complaint
# Ports that pages name; another one stands in for each, so that two pages can be followed at once.
PORTS = re.compile(r"(?<![\w.])(864[5-9]|3030[3-9])(?![\w.]*\d)")
_DEFAULT_NODE = "8645"
_FIRST_PORT, _PORTS = 20_000, 9_000  # below those that systems give to whoever dials

_UNWANTED = {"COLUMNS", "LINES", "FORCE_COLOR", "NO_COLOR", "PY_COLORS", "PYTHONPATH"}
# Cwd and variables are those of the next block, as they are for who types this into one terminal.
_SHELL = 'trap \'pwd >"$DOCS_CWD"; env -0 >"$DOCS_ENV"\' EXIT\nset -a\n'
_NUMBER = re.compile(r"\b(?:0x)?[0-9a-f]{8,}\b|-?\b\d[\d,.]*|\b[0-9a-f]{4,}(…|\.\.\.)")


class Child:
    """A process group of its own, and what it prints."""

    def __init__(self, block: Block, arguments: list[str], cwd: Path, env: dict[str, str]) -> None:
        self.block = block
        self.lines: list[str] = []
        self.news = threading.Condition()
        self.process = subprocess.Popen(
            arguments,
            cwd=cwd,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self.news:
                if len(self.lines) < MAX_LINES:
                    self.lines.append(line.rstrip("\n"))
                self.news.notify_all()
        with self.news:
            self.news.notify_all()

    @property
    def output(self) -> str:
        with self.news:
            return "\n".join(self.lines)

    def wait_for(self, text: str) -> None:
        with self.news:
            there = self.news.wait_for(
                lambda: any(text in line for line in self.lines) or not self.reader.is_alive(),
                PATIENCE,
            )
        if not there or text not in self.output:
            self.kill()
            raise PageError(f"{self.block.where}: never said {text!r}:\n{shortened(self.output)}")

    def wait(self) -> int:
        try:
            code = self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.kill()
            raise PageError(
                f"{self.block.where}: took too long:\n{shortened(self.output)}"
            ) from None
        self.reader.join(ENDING)  # what it left running would keep the pipe open
        if self.reader.is_alive():
            self.kill()
            raise PageError(
                f"{self.block.where}: leaves processes behind:\n{shortened(self.output)}"
            )
        return code

    def stop(self) -> None:
        """SIGTERM, to all of them; they have to end by it, and without a complaint."""
        if not self.reader.is_alive():
            self.kill()
            raise PageError(f"{self.block.where}: ended too soon:\n{shortened(self.output)}")
        os.killpg(self.process.pid, signal.SIGTERM)
        self.reader.join(ENDING)
        late = self.reader.is_alive()
        self.kill()
        if late:
            raise PageError(
                f"{self.block.where}: does not end by SIGTERM:\n{shortened(self.output)}"
            )
        if "Traceback (most recent call last)" in self.output:
            raise PageError(f"{self.block.where}: ended badly:\n{shortened(self.output)}")

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.reader.join()
        assert self.process.stdout is not None
        self.process.stdout.close()


class Following:
    """One page followed in an empty directory.

    `literal` takes the ports that the page names, if they are free. `installed` runs what is beside
    the interpreter, else the package of this tree.
    """

    def __init__(self, directory: Path, *, literal: bool = False, installed: bool = False) -> None:
        self.directory = directory / "page"
        self.aside = directory / "aside"
        self.directory.mkdir(parents=True)
        self.aside.mkdir()
        self.literal = literal
        self.ports: dict[str, str] = {}
        self.cwd = self.directory
        self.env = {name: value for name, value in os.environ.items() if name not in _UNWANTED}
        self.env |= {
            "HOME": str(self.aside),
            "DOCS_CWD": str(self.aside / "cwd"),
            "DOCS_ENV": str(self.aside / "env"),
            "PYTHONUNBUFFERED": "1",
        }
        path = [str(Path(sys.executable).parent), self.env.get("PATH", os.defpath)]
        if not installed:
            self.env["PYTHONPATH"] = str(ROOT)
            path.insert(0, str(self._commands()))
        self.env["PATH"] = os.pathsep.join(path)
        self.running: list[Child] = []
        self.printed = ""  # by the block before
        self.told: Callable[[str], object] | None = None  # what each one prints

    def _commands(self) -> Path:
        """`moderntensor` and `python` of this tree, whatever is installed."""
        place = self.aside / "bin"
        place.mkdir()
        for name, line in (
            ("moderntensor", f'exec "{sys.executable}" -W error -m moderntensor "$@"'),
            ("python", f'exec "{sys.executable}" "$@"'),
        ):
            (place / name).write_text(f"#!/bin/sh\n{line}\n")
            (place / name).chmod(0o755)
        return place

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        while self.running:
            child = self.running.pop()
            if kind is None:
                try:
                    child.stop()
                except BaseException:
                    self.__exit__(PageError, None, None)
                    raise
            else:
                child.kill()

    def follow(self, page: Page) -> None:
        """All of its blocks. PageError at the first that is not so."""
        self.ports = self._choose_ports(page)
        if _DEFAULT_NODE in self.ports:  # which commands ask that are not told whom
            self.env["MODERNTENSOR_NODE"] = f"http://127.0.0.1:{self.ports[_DEFAULT_NODE]}"
        blocks = [block for block in page.blocks if block.skipped is None]
        for index, block in enumerate(blocks):
            if block.stop is not None:
                self._stop(block, self._with_ports(block.stop))
            elif block.kind == PYTHON and not block.file:
                if not block.continues:
                    more = _continuations(blocks[index + 1 :])
                    self._run(block, self._with_ports("".join([block.text, *more])))
            elif block.file is not None:
                path = self.cwd / block.file
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(self._with_ports(block.text), encoding="utf-8")
                check_data(block)
            elif block.output:
                compare(block, self.printed)
            elif block.kind == SHELL:
                self._run(block, self._with_ports(block.text))
            elif block.kind == CONSOLE:
                commands, output = prompts(block.text)
                self._run(block, self._with_ports(commands))
                compare_lines(block, output, self.printed)
            else:
                check_data(block)

    def _choose_ports(self, page: Page) -> dict[str, str]:
        named = sorted({port for block in page.blocks for port in PORTS.findall(block.text)})
        if self.literal and all(_is_free(int(port)) for port in named):
            return {}
        chosen: dict[str, str] = {}
        next_one = os.getpid() * 16
        for port in named:
            while not _is_free(candidate := _FIRST_PORT + next_one % _PORTS):
                next_one += 1
            next_one += 1
            chosen[port] = str(candidate)
        return chosen

    def _with_ports(self, text: str) -> str:
        return PORTS.sub(lambda found: self.ports.get(found[1], found[1]), text)

    def _run(self, block: Block, text: str) -> None:
        if block.kind == PYTHON:
            script = self.aside / f"line_{block.line}.py"
            script.write_text(text, encoding="utf-8")
            arguments = [sys.executable, "-W", "error", str(script)]
        else:
            arguments = ["bash", "-euo", "pipefail", "-c", _SHELL + text]
        child = Child(block, arguments, self.cwd, self.env)
        if block.until is not None:
            self.running.append(child)
            child.wait_for(self._with_ports(block.until))
            self.printed = child.output
            return
        try:
            code = child.wait()
        finally:
            child.kill()
        self.printed = child.output
        if self.told is not None:
            self.told(f"-- {block.where}\n{child.output}")
        if code != block.exit:
            others = "\n".join(f"-- {c.block.where}\n{c.output}" for c in self.running)
            raise PageError(
                f"{block.where}: exit code {code}, not {block.exit}:\n"
                f"{shortened(child.output)}\n{shortened(others)}"
            )
        if block.kind != PYTHON:
            self._remember()

    def _remember(self) -> None:
        self.cwd = Path((self.aside / "cwd").read_text(encoding="utf-8").rstrip("\n"))
        pairs = (self.aside / "env").read_text(encoding="utf-8").split("\0")
        self.env = dict(pair.split("=", 1) for pair in pairs if "=" in pair)

    def _stop(self, block: Block, text: str) -> None:
        (child,) = (c for c in self.running if text in self._with_ports(c.block.text))
        self.running.remove(child)
        child.stop()
        self.printed = child.output


def _continuations(blocks: list[Block]) -> list[str]:
    """What belongs to the same program, up to the next one of its own."""
    texts = []
    for block in blocks:
        if block.kind == PYTHON and not block.file:
            if not block.continues:
                break
            texts.append(block.text)
    return texts


def _is_free(port: int) -> bool:
    with socket.socket() as tried:
        tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            tried.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def check_data(block: Block) -> None:
    """JSON, TOML, YAML and INI can be read, Python and shell can be parsed."""
    try:
        if block.kind == "json":
            json.loads(block.text)
        elif block.kind == "toml":
            tomllib.loads(block.text)
        elif block.kind == "yaml":
            _check_yaml(block)
        elif block.kind == "ini":
            configparser.ConfigParser(interpolation=None, strict=False).read_string(block.text)
        elif block.kind == PYTHON:
            compile(block.text, block.where, "exec")
    except (ValueError, SyntaxError, configparser.Error) as error:
        raise PageError(f"{block.where}: {error}") from error


def _check_yaml(block: Block) -> None:
    import yaml  # an extra: where a page is followed it need not be there

    try:
        list(yaml.safe_load_all(block.text))
    except yaml.YAMLError as error:
        raise PageError(f"{block.where}: {error}") from error


def compare(block: Block, printed: str) -> None:
    """That the block shows what was printed, up to figures."""
    if block.kind == TEXT:
        compare_lines(block, block.text, printed)
        return
    try:
        real = json.loads(printed)
    except ValueError as error:
        raise PageError(f"{block.where}: what was printed is no JSON:\n{printed}") from error
    compare_shape(block, json.loads(block.text), real, "it")


def compare_lines(block: Block, shown: str, printed: str) -> None:
    """Line after line; numbers, hashes and white space aside. A line `…` stands for any."""
    real = [_masked(line) for line in printed.splitlines() if line.strip()]
    runs: list[list[str]] = [[]]  # of lines, between those that stand for any
    for line in shown.splitlines():
        if line.strip() in ("…", "..."):
            runs.append([])
        elif line.strip():
            runs[-1].append(_masked(line))
    position = len(runs[0])
    matches = real[:position] == runs[0] if len(runs) > 1 else real == runs[0]
    for run in runs[1:-1]:
        places = range(position, len(real) - len(run) + 1)
        found = next((n for n in places if real[n : n + len(run)] == run), None)
        matches = matches and found is not None
        position = (found or 0) + len(run)
    end = len(real) - len(runs[-1])
    if not (matches and (len(runs) == 1 or (end >= position and real[end:] == runs[-1]))):
        raise PageError(f"{block.where}: shown is\n{shown}\nbut printed was\n{shortened(printed)}")


def shortened(text: str) -> str:
    """Its beginning and its end, where it is long."""
    half = MAX_SHOWN // 2
    return text if len(text) <= MAX_SHOWN else f"{text[:half]}\n[…]\n{text[-half:]}"


def _masked(line: str) -> str:
    return re.sub(r"[\s━─]+", " ", _NUMBER.sub("#", line)).strip()


def compare_shape(block: Block, shown: object, real: object, name: str) -> None:
    """The same keys and types all the way down; null stands for anything."""
    if shown is None or real is None:
        return
    numbers = (int, float)
    alike = type(shown) is type(real) or (type(shown) in numbers and type(real) in numbers)
    if not alike:
        raise PageError(f"{block.where}: {name} is {real!r}, not like {shown!r}")
    if isinstance(shown, dict) and isinstance(real, dict):
        if set(shown) != set(real):
            raise PageError(f"{block.where}: {name} has {sorted(real)}, not {sorted(shown)}")
        for key, value in shown.items():
            compare_shape(block, value, real[key], f"{name}.{key}")
    elif isinstance(shown, list) and isinstance(real, list):
        for one, other in zip(shown, real, strict=False):
            compare_shape(block, one, other, f"{name}[]")
