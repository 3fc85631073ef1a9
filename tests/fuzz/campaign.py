"""Many targets by turns, each in a process of its own, and what came of it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
GRACE: Final = 120  # seconds over its own that a slice may take to start and to end
SANITIZERS: Final = {
    "ASAN_OPTIONS": "detect_leaks=0:allocator_may_return_null=1",  # the interpreter leaks
    "UBSAN_OPTIONS": "print_stacktrace=1",
    "PYTHONMALLOC": "malloc",  # the interpreter's own allocator would hide most mistakes
    "PYCRYPTODOME_DISABLE_DEEPBIND": "1",  # which the sanitizer refuses
}

_PROGRESS = re.compile(rb"^#\d+\s+\w+\s+cov: (\d+) ft: (\d+) corp: (\d+)", re.MULTILINE)
_RUNS = re.compile(rb"^(?:stat::number_of_executed_units:|Done) +(\d+)", re.MULTILINE)


@dataclass
class Figures:
    """What all slices of one target in one mode came to."""

    executions: int = 0
    seconds: float = 0.0
    first_edges: int = 0  # with the seeds alone
    edges: int = 0
    features: int = 0
    corpus: int = 0
    findings: list[str] = field(default_factory=list)


class Campaign:
    """Runs slices of fuzzing; keeps corpora, findings and figures under `work`.

    `targets` says of each whether it exercises the compiled engines; of one that is a program of
    its own, None.
    """

    def __init__(
        self,
        *,
        work: Path | None,
        native: Path | None,
        targets: dict[str, bool | None],
        modes: list[str],
        seconds: int,
        jobs: int,
    ) -> None:
        self._work = work or Path(tempfile.mkdtemp(prefix="fuzz-"))
        self._native = native
        self._slices = [
            (name, mode)
            for mode in modes
            for name, native_too in targets.items()
            if native_too or (native_too is False and mode == "twins")
        ]
        if native is not None:  # programs of C alone, under the name of what they fuzz
            programs = sorted((native / "programs").glob("*"))
            self._slices += [(path.name, "c") for path in programs if path.name in targets]
        self._seconds = seconds
        self._jobs = jobs
        self._figures_file = self._work / "figures.json"
        self.figures: dict[str, Figures] = {}
        if self._figures_file.exists():
            known = json.loads(self._figures_file.read_text(encoding="utf-8"))
            self.figures = {key: Figures(**value) for key, value in known.items()}

    def run(self, minutes: float | None) -> int:
        """By turns until the time is over, or once; 1 if anything was found."""
        end = time.monotonic() + 60 * minutes if minutes else None
        with ThreadPoolExecutor(self._jobs) as pool:
            while True:
                for _ in pool.map(self._slice, self._turn(end)):
                    pass
                if end is None or time.monotonic() >= end:
                    break
        self._print()
        return 1 if any(figures.findings for figures in self.figures.values()) else 0

    def _turn(self, end: float | None) -> Iterator[tuple[str, str]]:
        for part in self._slices:
            if end is None or time.monotonic() < end:
                yield part

    def _slice(self, part: tuple[str, str]) -> None:
        name, mode = part
        key = f"{name} {mode}"
        corpus = self._work / "corpus" / mode / name
        found = self._work / "found"
        for place in (corpus, found):
            place.mkdir(parents=True, exist_ok=True)
        arguments = [
            f"-max_total_time={self._seconds}",
            f"-artifact_prefix={found / f'{name}-{mode}-'}",
            os.fspath(corpus),
        ]
        command, environment = self._command(name, mode)
        started = time.monotonic()
        ended = subprocess.run(
            [*command, *arguments],
            env=environment,
            cwd=self._work,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=self._seconds + GRACE,
            check=False,
        )
        figures = self.figures.setdefault(key, Figures())
        self._count(figures, ended.stdout)
        figures.seconds = round(figures.seconds + time.monotonic() - started, 1)
        if ended.returncode:
            log = found / f"{name}-{mode}-{len(figures.findings)}.log"
            log.write_bytes(ended.stdout)
            figures.findings.append(os.fspath(log))
            print(ended.stdout.decode(errors="replace")[-6000:], flush=True)
        print(
            f"{key}: {figures.executions} executions, {figures.edges} edges, "
            f"{figures.features} features, {len(figures.findings)} findings",
            flush=True,
        )
        self._figures_file.write_text(
            json.dumps({k: asdict(v) for k, v in sorted(self.figures.items())}, indent=1) + "\n",
            encoding="utf-8",
        )

    def _count(self, figures: Figures, output: bytes) -> None:
        runs = _RUNS.findall(output)
        figures.executions += int(runs[-1]) if runs else 0
        progress = [tuple(map(int, found)) for found in _PROGRESS.findall(output)]
        if progress:
            figures.first_edges = figures.first_edges or progress[0][0]
            edges, features, corpus = progress[-1]
            figures.edges = max(figures.edges, edges)
            figures.features = max(figures.features, features)
            figures.corpus = corpus

    def _command(self, name: str, mode: str) -> tuple[list[str], dict[str, str]]:
        """The command line of a slice, and its environment."""
        if mode == "c" and self._native is not None:
            program = os.fspath(self._native.resolve() / "programs" / name)
            return [program, "-max_len=2048", "-print_final_stats=1"], {**os.environ, **SANITIZERS}
        command = [sys.executable, "-m", "fuzz", "--here", "--mode", mode, name]
        environment = {k: v for k, v in os.environ.items() if not k.startswith("MODERNTENSOR_")}
        environment["PYTHONPATH"] = os.pathsep.join(map(os.fspath, (ROOT / "tests", ROOT)))
        if mode == "twins":
            return command, environment
        if self._native is None:
            raise SystemExit("this mode needs engines that were built for it: --native")
        import atheris

        preload = os.fspath(Path(atheris.path()) / "asan_with_fuzzer.so")
        environment |= {**SANITIZERS, "LD_PRELOAD": preload}
        return [*command, "--native", os.fspath(self._native.resolve())], environment

    def _print(self) -> None:
        total = sum(figures.executions for figures in self.figures.values())
        print(f"\n{'':28}{'executions':>12}{'edges':>14}{'features':>10}{'findings':>10}")
        for key, f in sorted(self.figures.items()):
            edges = f"{f.first_edges} > {f.edges}"
            print(f"{key:28}{f.executions:12}{edges:>14}{f.features:10}{len(f.findings):10}")
        print(f"{total} executions; corpora, findings and figures in {self._work}")
