"""`moderntensor state`: proofs are made from a chain's directory, and checked without one."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path

import pytest
from helpers.command import complaint_of, printed, run_each
from helpers.no_room import no_room

from moderntensor.blockchain.proofs import AccountProof
from moderntensor.cli import main, state
from moderntensor.errors import ConfigError

NOBODY = "0x" + "ee" * 20


def shown(text: str, name: str) -> str:
    found = re.search(rf"^{name} {{2,}}(.+)$", text, re.MULTILINE)
    assert found, text
    return found[1]


def test_a_proof_is_made_and_checked(
    net: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    rich = next(iter(json.loads((net / "genesis.json").read_text())["alloc"]))
    file, absent = tmp_path / "proof.json", tmp_path / "absent.json"
    wrong = tmp_path / "wrong.json"
    (tmp_path / "cut.json").write_text("{")
    out, made, data, summary, account = run_each(
        [
            ("state", "prove", net, rich),
            ("state", "prove", net, rich, "--out", file),
            ("state", "prove", net / "data", NOBODY, "--out", absent),
            ("chain", "inspect", net),
            ("chain", "inspect", net, "--account", rich),
        ]
    )
    assert printed(out) == file.read_text()
    for proved in (made, data):
        assert shown(printed(proved), "block") == shown(printed(summary), "head")
    assert shown(printed(data), "balance") == "no account"
    assert shown(printed(made), "balance") == shown(printed(account), "balance")
    root, block = (
        shown(printed(summary), "state root"),
        shown(printed(summary), "head").split()[1],
    )

    document = json.loads(file.read_text())
    document["account"]["balance"] = "1"
    wrong.write_text(json.dumps(document))
    checks = run_each(
        [
            ("state", "check", file),
            ("state", "check", file, "--root", root),
            ("state", "check", absent, "--root", "0x" + root.upper(), "--block", block),
            ("state", "check", file, "--root", "00" * 32),
            ("state", "check", file, "--block", "00" * 32),
            ("state", "check", wrong, "--root", root),
            ("state", "check", tmp_path / "cut.json"),
            ("state", "check", tmp_path / "nowhere.json"),
            ("state", "prove", net, rich, "--out", file),
            ("state", "prove", tmp_path, rich),
        ]
    )
    assert "compare its hash" in printed(checks[0])
    assert printed(checks[1]).endswith("\nproved\n")
    assert shown(printed(checks[2]), "balance") == "no account"
    complaints = [complaint_of(check) for check in checks[3:]]
    assert f"is about state root {root}, not the one trusted" in complaints[0]
    assert f"is about block {block}, not the one trusted" in complaints[1]
    assert "does not prove what it says" in complaints[2]
    assert "cut.json: not JSON" in complaints[3]
    assert "No such file" in complaints[4]
    assert "exists and is not overwritten" in complaints[5]
    assert "holds no chain" in complaints[6]
    assert AccountProof.from_json(file.read_text()).verify(bytes.fromhex(root))

    monkeypatch.setattr("sys.stdin", io.StringIO(file.read_text()))
    assert main(["state", "check", "-", "--root", root]) == 0
    assert capsys.readouterr().out.endswith("\nproved\n")


def test_a_proof_for_which_there_is_no_room_leaves_no_file(tmp_path: Path) -> None:
    path = tmp_path / "proof"
    with no_room(), pytest.raises(ConfigError, match="proof: File too large"):
        state._write(path, "{}")
    assert not path.exists()


def test_what_is_no_digits_is_a_usage_error(tmp_path: Path) -> None:
    for result, text in zip(
        run_each(
            [
                ("state", "prove", tmp_path, "0x12"),
                ("state", "check", tmp_path, "--root", "zz" * 32),
                ("state", "check", tmp_path, "--block", ""),
            ]
        ),
        ("ADDRESS", "--root", "--block"),
        strict=True,
    ):
        assert text in complaint_of(result, code=2)
