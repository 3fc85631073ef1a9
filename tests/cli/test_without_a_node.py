"""What the command does without asking a node: JSON, completion, and starting fast."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from helpers.command import PYTHON, environment, printed, run_each

from moderntensor.cli.lazy import COMMANDS

# --- JSON of what asks no node -------------------------------------------------------------


def test_other_commands_print_json_too(net: Path, tmp_path: Path) -> None:
    address = "0x" + "00" * 20
    results = run_each(
        [
            ("chain", "inspect", net, "--json"),
            ("chain", "inspect", net, "--block", "7", "--json"),
            ("chain", "inspect", net, "--account", address, "--json"),
            ("chain", "verify", net, "--json"),
            ("keys", "new", tmp_path / "a.key", "--json"),
            ("keys", "show", tmp_path / "a.key", "--json"),
            ("state", "prove", net, address, "--out", tmp_path / "proof", "--json"),
            ("state", "check", tmp_path / "proof", "--json"),
            ("simulate", "--list", "--json"),
        ]
    )
    told = [json.loads(printed(result)) for result in results]
    chain, block, account, verified, made, shown, proved, checked, scenarios = told
    assert chain["height"] == verified["height"] == 30 and verified["verified"]
    assert block["height"] == 7 and len(block["transactions"]) == 2
    assert account["balance"] == "0" and not checked["exists"]
    assert made == shown
    assert proved["block_hash"] == checked["block_hash"] == chain["head_hash"]
    assert (proved["trusted"], checked["trusted"]) == (True, False)
    assert {"name", "about", "parameters"} == set(scenarios[0])
    (chaos,) = (each for each in scenarios if each["name"] == "chaos")
    assert {"nodes", "validators"} <= set(chaos["parameters"])


# --- completion ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "shell", ["bash", *(pytest.param(each, marks=pytest.mark.long) for each in ("zsh", "fish"))]
)
def test_shells_complete_commands_and_options(shell: str) -> None:
    """What the script that they load runs, with the words typed so far."""

    def complete(instruction: str, words: str) -> str:
        return subprocess.run(
            PYTHON,
            env=environment(
                _MODERNTENSOR_COMPLETE=f"{instruction}_{shell}",
                _TYPER_COMPLETE_ARGS=words,
                _TYPER_COMPLETE_FISH_ACTION="get-args",
                COMP_WORDS=words,
                COMP_CWORD=str(len(words.split(" ")) - 1),
            ),
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        ).stdout

    assert "_MODERNTENSOR_COMPLETE=complete_" + shell in complete("source", "")
    found = complete("complete", "moderntensor st")
    assert "status" in found and "state" in found and "demo" not in found
    if shell == "bash":
        assert "--chain-id" in complete("complete", "moderntensor tx send --ch")


def test_starting_imports_only_what_is_asked_for() -> None:
    """The version and a completion are answered without chain, network and engines' rules."""
    code = (
        "import sys; from moderntensor.cli import main; main(['--version']); "
        "print(sorted(m for m in sys.modules if m.startswith(('moderntensor.n', 'asyncio', "
        "'moderntensor.blockchain', 'moderntensor.client', 'aiohttp', 'rich.'))))"
    )
    done = subprocess.run(
        [PYTHON[0], "-c", code], env=environment(), capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[1] == "[]"
    assert list(COMMANDS)[:3] == ["status", "peers", "top"]
