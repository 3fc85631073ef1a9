"""What all commands have in common: help, errors, exit codes, pipes; and `keys`."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
import typer.main
from helpers.command import (
    PATIENCE,
    PYTHON,
    complaint,
    complaint_of,
    environment,
    printed,
    run,
    run_each,
    running,
    succeed,
)

from moderntensor import __version__, backend
from moderntensor.blockchain.key_files import load_key
from moderntensor.cli.app import app


def commands() -> dict[str, list[str]]:
    """Every command, by the words that call it, with what its help must name: its parameters,
    and the commands below it."""
    found = {}
    waiting: list[tuple[tuple[str, ...], Any]] = [((), typer.main.get_command(app))]
    while waiting:
        words, command = waiting.pop()
        below = getattr(command, "commands", {})
        waiting += [((*words, name), sub) for name, sub in below.items()]
        found[" ".join(words)] = [
            *below,
            *(max(p.opts, key=len) for p in command.params if p.param_type_name == "option"),
            *(p.metavar or "PATH" for p in command.params if p.param_type_name == "argument"),
        ]
    return found


COMMANDS = commands()


def test_the_commands_are_these() -> None:
    assert set(COMMANDS) == {
        "",
        "status",
        "peers",
        "peers list",
        "peers add",
        "peers drop",
        "peers ban",
        "peers unban",
        "peers bans",
        "top",
        "tx",
        "tx send",
        "tx show",
        "account",
        "account show",
        "demo",
        "node",
        "chain",
        "chain new",
        "chain produce",
        "chain inspect",
        "chain verify",
        "keys",
        "keys new",
        "keys show",
        "bans",
        "bans list",
        "bans add",
        "bans lift",
        "simulate",
        "state",
        "state prove",
        "state check",
    }


def test_help_of_every_command_mentions_every_option() -> None:
    results = run_each([*words.split(), "--help"] for words in COMMANDS)
    for result, words in zip(results, COMMANDS, strict=True):
        assert result.returncode == 0, words
        assert not result.stderr
        for name in COMMANDS[words]:
            assert re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", result.stdout), (words, name)


def test_version() -> None:
    assert succeed("--version").startswith(f"moderntensor {__version__} ({backend.NAME} engines")


def test_wrong_arguments_are_one_line_and_2() -> None:
    wrong = [
        (["--no-such"], "--no-such"),
        (["nonsense"], "nonsense"),
        (["demo", "--no-such"], "--no-such"),
        (["demo", "--blocks", "0"], "--blocks"),
        (["demo", "--peers", "many"], "--peers"),
        (["chain", "nonsense"], "nonsense"),
        (["chain", "verify"], "DIR"),
        (["chain", "verify", ""], "DIR"),
        (["node", "--data", "", "--genesis", "g"], "--data"),
        (["peers", "ban", "1.2.3.4", "--data", ""], "--data"),
        (["node", "--data", "d"], "--genesis"),
        (["--log-level", "loud", "demo"], "--log-level"),
        (["node", "--data", "d", "--genesis", "g", "--listen", "nowhere"], "--listen"),
        (["node", "--data", "d", "--genesis", "g", "--peer", "host:0"], "--peer"),
    ]
    results = run_each(arguments for arguments, _ in wrong)
    for result, (_, text) in zip(results, wrong, strict=True):
        line = complaint_of(result, code=2)
        assert text in line
        assert line.endswith("(see --help)")
    assert complaint("--no-such", code=2) == "No such option: --no-such (see --help)"


def test_bytes_that_are_no_text_are_one_line(tmp_path: Path) -> None:
    """How Python has them: as surrogates, which nothing can be made of but a file's name."""
    results = run_each(
        [
            ("chain", "new", tmp_path / "net", "--seed", "\udcff"),
            ("peers", "ban", "\udcff", "--node", "127.0.0.1:1"),
        ]
    )
    for result in results:
        assert complaint_of(result) == "'\\udcff' cannot be written in utf-8"


def test_what_the_output_has_no_character_for_is_a_question_mark(tmp_path: Path) -> None:
    done = subprocess.run(
        [*PYTHON, "keys", "new", tmp_path / "schl\u00fcssel.key"],
        env=environment(PYTHONIOENCODING="ascii"),
        capture_output=True,
        text=True,
        check=False,
    )
    assert "schl?ssel.key" in printed(done)


def test_an_interrupt_while_modules_are_imported_is_no_traceback() -> None:
    code = (
        "import sys\n"
        "class Interrupted:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name == 'typer':\n"
        "            raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Interrupted())\n"
        "from moderntensor.cli import main\n"
        "sys.exit(main(['--version']))\n"
    )
    done = subprocess.run(
        [PYTHON[0], "-c", code], env=environment(), capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (130, "")


def test_without_a_command_it_shows_help_and_fails() -> None:
    result = run()
    assert result.returncode == 2
    assert "demo" in result.stdout


@pytest.mark.parametrize("arguments", [["--help"], ["demo", "--blocks", "50"]])
def test_a_reader_that_went_away_is_no_traceback(arguments: list[str]) -> None:
    """As in ``moderntensor demo | head -1``, only that the reader is gone for certain."""
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "wb") as closed:
        result = subprocess.run(
            [*PYTHON, *arguments],
            env=environment(),
            stdout=closed,
            stderr=subprocess.PIPE,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
    assert result.returncode == 1
    assert not result.stderr


# --- keys ----------------------------------------------------------------------------------


def test_new_keys_are_kept_from_others_and_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "my.key"
    made, again, seen = run_each([("keys", word, path) for word in ("new", "new", "show")])
    assert complaint_of(again) == f"key file {path}: exists and is not overwritten"
    shown = printed(made)
    assert printed(seen) == shown
    assert path.stat().st_mode & 0o777 == 0o600
    key = load_key(path)
    assert f"address        0x{key.address.hex()}\n" in shown
    assert f"validator key  {key.public_key.hex()}\n" in shown
    assert key.secret.hex() not in shown

    path.chmod(0o644)
    assert "my.key" in complaint("keys", "show", path)


def test_what_is_no_key_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "wrong"
    path.write_text("{}")
    path.chmod(0o600)
    results = run_each(
        [
            ("keys", "show", path),
            ("keys", "show", tmp_path / "missing"),
            ("keys", "new", tmp_path / "missing" / "new.key"),
        ]
    )
    wrong, missing, nowhere = map(complaint_of, results)
    assert str(path) in wrong
    assert "No such file" in missing
    assert "No such file" in nowhere


# --- signals -------------------------------------------------------------------------------


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interrupted_work_ends_soon_and_leaves_nothing(
    number: int, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Building so many blocks would take many minutes."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    with running("demo", "--blocks", "1000000") as demo:
        demo.line_with("building")
        assert len(list(tmp_path.iterdir())) == 1
        assert demo.stop(number) == (code, "", "")
    assert not list(tmp_path.iterdir())
