"""Messages of applications in the simulator: they arrive, and the same seed gives the same run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from helpers import simulated_chat
from helpers.simulated_chat import run

ROOT = Path(__file__).parents[2]


def test_applications_talk_in_the_same_way_in_every_process() -> None:
    """Hashes of text, which sets of capabilities and of messages go by, are other ones in each."""
    child = subprocess.Popen(
        [sys.executable, simulated_chat.__file__, "3"],
        env={
            **os.environ,
            "PYTHONHASHSEED": "4711",
            "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}",
        },
        stdout=subprocess.PIPE,
        text=True,
    )
    with child:
        digest, talk = run(3)
        assert child.communicate()[0].strip() == digest
    heard = talk.heard
    assert set(heard["n0"]) | set(heard["n1"]) == {
        "hang",
        *(f"line {number}" for number in range(20) if number != 5),
    }
    assert "line 19" in heard["n2"] and "hang" not in heard["n2"]
    assert heard["n3"] == heard["n4"] == talk.rolled == []  # who does not share it, hears nothing
    assert talk.answers["OK"] > 20
    assert talk.events["heard"] > 30
    assert talk.events["offence"] == 0
