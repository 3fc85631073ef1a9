"""What a checkout, a build and an installation promise."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import moderntensor
from moderntensor import backend

PACKAGE = Path(moderntensor.__file__).parent
ROOT = PACKAGE.parent


def run_python(code: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    clean = {k: v for k, v in os.environ.items() if not k.startswith("MODERNTENSOR_")}
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=cwd,
        env={**clean, "PYTHONPATH": str(cwd), **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.fixture
def unbuilt(tmp_path: Path) -> Path:
    """A copy of the package as in a fresh clone: no compiled engine in it."""
    shutil.copytree(
        PACKAGE,
        tmp_path / "moderntensor",
        ignore=shutil.ignore_patterns("*.so", "*.pyd", "__pycache__"),
    )
    return tmp_path


def test_unbuilt_tree_says_how_to_build(unbuilt: Path) -> None:
    result = run_python("import moderntensor.backend", unbuilt)
    assert result.returncode != 0
    assert "pip install" in result.stderr
    assert "MODERNTENSOR_PURE=1" in result.stderr


def test_the_command_of_an_unbuilt_tree_says_so_in_one_line(unbuilt: Path) -> None:
    code = "from moderntensor.cli import main; raise SystemExit(main(['--version']))"
    result = run_python(code, unbuilt)
    assert result.returncode == 1
    (line,) = result.stderr.splitlines()
    assert line.startswith("moderntensor: error: the compiled engines")
    assert "pip install -e ." in line


def test_unbuilt_tree_runs_pure_when_asked(unbuilt: Path) -> None:
    code = "import moderntensor.backend as b; print(b.NAME, b.framing.__name__)"
    result = run_python(code, unbuilt, MODERNTENSOR_PURE="1")
    assert result.stdout.split() == ["pure", "moderntensor._pure.framing"], result.stderr


def test_marker_makes_a_build_pure(unbuilt: Path) -> None:
    (unbuilt / "moderntensor" / "_pure" / "_marker.py").write_text("")
    result = run_python("import moderntensor.backend as b; print(b.NAME)", unbuilt)
    assert result.stdout.strip() == "pure", result.stderr


def test_one_missing_engine_is_not_replaced_by_its_twin(unbuilt: Path) -> None:
    built = sorted((PACKAGE / "_ext").glob("*.so")) + sorted((PACKAGE / "_ext").glob("*.pyd"))
    if len(built) < 5:
        pytest.skip("the compiled engines are not built here")
    for library in built:
        if not library.name.startswith("merkle."):
            shutil.copy(library, unbuilt / "moderntensor" / "_ext")
    result = run_python("import moderntensor.backend", unbuilt)
    assert result.returncode != 0
    assert "merkle" in result.stderr


def test_names_of_the_front_door_exist() -> None:
    for name in moderntensor.__all__:
        assert getattr(moderntensor, name) is not None, name
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = moderntensor.no_such_name  # type: ignore[attr-defined]


def test_import_is_light() -> None:
    """`import moderntensor` alone must not pull in the event loop, the store or the CLI."""
    code = (
        "import sys, moderntensor\n"
        "heavy = ('asyncio', 'lmdb', 'cryptography', 'typer', 'rich')\n"
        "print([m for m in heavy if m in sys.modules])"
    )
    result = run_python(code, ROOT)
    assert result.stdout.strip() == "[]", result.stdout + result.stderr


def test_version_is_written_once() -> None:
    assert moderntensor.__version__ in (PACKAGE / "_version.py").read_text()
    assert moderntensor.__version__ not in (ROOT / "pyproject.toml").read_text()


def test_backend_is_all_of_one_side() -> None:
    side = {"pure": "_pure", "compiled": "_ext"}[backend.NAME]
    engines = (
        backend.framing, backend.layout, backend.headers, backend.merkle, backend.signatures
    )  # fmt: skip
    assert {m.__name__.rsplit(".", 2)[1] for m in engines} == {side}


def test_compiled_engines_have_stubs() -> None:
    sources = {p.stem for p in (ROOT / "ext").glob("*.pyx")}
    assert sources == {"framing", "layout", "headers", "merkle", "signatures"}
    assert {p.stem for p in (PACKAGE / "_ext").glob("*.pyi")} == sources
