"""One target under the fuzzer in this process."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

MODES: Final = ("twins", "native", "native-twins")
"""twins: coverage of the Python code, the compiled engines as its oracle. native: the compiled
engines alone, built with clang for coverage and sanitizers. native-twins: these, held to the pure
ones."""

PROGRAMS: Final = ("sha256",)  # <name>_fuzz.c, beside this file
TIMEOUT: Final = 20  # seconds that one input may take
MEMORY: Final = 2048  # MiB


def _load(name: str, native: Path | None) -> Any:
    """A target, upon the engines in `native` if there are any."""
    if native is not None:
        import moderntensor._ext

        moderntensor._ext.__path__.insert(0, os.fspath(native / "moderntensor" / "_ext"))
    from . import targets, twins

    built = Path(twins.COMPILED.framing.__file__)
    if native is not None and not built.is_relative_to(native):
        raise SystemExit(f"the engines are those of {built.parent}")
    return targets.load()[name]


def known_targets() -> dict[str, bool | None]:
    """The names of all targets, and whether each exercises the compiled engines; None for those
    that are programs of C alone."""
    from . import targets

    found: dict[str, bool | None] = {n: target.native for n, target in targets.load().items()}
    return {**found, **dict.fromkeys(PROGRAMS)}


def run_here(name: str, mode: str, native: Path | None, arguments: list[str]) -> None:
    """Fuzz one target until the fuzzer ends this process; `arguments` are libFuzzer's."""
    import atheris

    target = _load(name, native) if mode == "native" else None
    if target is None:
        with atheris.instrument_imports(include=["moderntensor"]):
            target = _load(name, native)
    else:
        from . import twins

        twins.drop_the_pure_twin()
    place = Path(tempfile.mkdtemp(prefix=f"fuzz-{name}-"))
    seeds = place / "seeds"
    seeds.mkdir()
    for number, seed in enumerate(target.seeds()):
        (seeds / f"{number:03}").write_bytes(seed)
    extra = []
    if target.words:
        escaped = ("".join(f"\\x{byte:02x}" for byte in word) for word in target.words)
        words = "".join(f'"{word}"\n' for word in escaped)
        (place / "words").write_text(words)
        extra = [f"-dict={place / 'words'}"]
    corpora = [argument for argument in arguments if not argument.startswith("-")]
    flags = [argument for argument in arguments if argument.startswith("-")]
    atheris.Setup(
        [
            sys.argv[0],
            f"-max_len={target.longest}",
            f"-timeout={TIMEOUT}",
            f"-rss_limit_mb={MEMORY}",
            "-print_final_stats=1",
            *extra,
            *flags,
            *corpora,
            os.fspath(seeds),
        ],
        target.run,
    )
    atheris.Fuzz()
