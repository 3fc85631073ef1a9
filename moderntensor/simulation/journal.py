"""The results of a campaign on disk, each as soon as there is one: a line of JSON per seed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from ..errors import ConfigError
from .result import Parameter, ScenarioResult

FILE: Final = "results.jsonl"


class Journal:
    """A file that only grows. Interrupted at any point, it keeps every line that was finished."""

    def __init__(self, path: Path) -> None:
        """Opens `path`, made if it is missing; ConfigError if it holds anything else."""
        self.path = path
        self._results: dict[tuple[str, int], ScenarioResult] = {}
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("a+b")
        try:
            self._read()
        except BaseException:
            self._file.close()
            raise

    def _read(self) -> None:
        self._file.seek(0)
        end = 0
        for number, line in enumerate(self._file, 1):
            if not line.endswith(b"\n"):
                self._file.truncate(end)  # whoever wrote it was killed over it
                break
            try:
                result = ScenarioResult.from_json(line)
            except ConfigError as error:
                raise ConfigError(f"{self.path}, line {number}: {error}") from None
            self._results[result.scenario, result.seed] = result
            end += len(line)

    def add(self, result: ScenarioResult) -> None:
        """Keep `result`; it is with the system when this returns."""
        self._file.write(result.to_json().encode() + b"\n")
        self._file.flush()
        self._results[result.scenario, result.seed] = result

    def finished(
        self, name: str, parameters: Mapping[str, Parameter], seeds: Iterable[int]
    ) -> dict[int, ScenarioResult]:
        """What is there of scenario `name`: seed → result. Runs that came to no end are left out.

        ConfigError if one of them ran with other parameters: figures of two kinds are not joined.
        """
        found = {}
        for seed in seeds:
            result = self._results.get((name, seed))
            if result is None or not result.came_to_an_end:
                continue
            if result.parameters != dict(parameters):
                raise ConfigError(
                    f"{self.path} has {name} with seed {seed} of the parameters "
                    f"{_said(result.parameters)}, not {_said(parameters)}: use another directory"
                )
            found[seed] = result
        return found

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _said(parameters: Mapping[str, Parameter]) -> str:
    return ", ".join(f"{name}={value}" for name, value in parameters.items()) or "by default"
