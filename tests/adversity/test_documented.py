"""The table in docs/security.md is complete and says what is so."""

from __future__ import annotations

import json

from moderntensor.config import NodeConfig

from . import report, test_bytes, test_handshake, test_slots, test_traffic
from .rows import HAZARDS

ROWS = {*map(str, range(1, 55)), "43a", "43b", "43c"}


def test_every_row_has_a_test_or_says_why_not() -> None:
    assert {hazard.row for hazard in HAZARDS} == ROWS
    assert set(report.tests()) <= ROWS
    for hazard in HAZARDS:
        if hazard.elsewhere.startswith("tests/"):
            assert (report.ROOT / hazard.elsewhere.split("::")[0]).exists(), hazard.row
        else:
            assert hazard.elsewhere or report.tests().get(hazard.row), hazard.row


def test_the_page_shows_this_table() -> None:
    results = json.loads(report.RESULT.read_text(encoding="utf-8"))
    assert report.section(results) in report.PAGE.read_text(encoding="utf-8")


def test_defaults_are_those_that_the_tests_let_run_out() -> None:
    """Time is moved on by the documented values; these are the node's."""
    config = NodeConfig()
    assert config.handshake_timeout == test_handshake.HANDSHAKE_TIMEOUT
    assert config.ping_interval == test_traffic.PING_INTERVAL
    assert config.ping_timeout == test_traffic.PING_TIMEOUT
    assert config.send_stall_timeout == test_traffic.SEND_STALL_TIMEOUT
    assert config.request_timeout == test_slots.REQUEST_TIMEOUT
    assert config.redial_interval == test_slots.REDIAL_INTERVAL
    assert config.max_peers == test_slots.MAX_PEERS
    assert config.target_outbound == test_slots.TARGET_OUTBOUND
    assert config.refusal_time == 600
    assert config.byte_budget == 256 * test_bytes.MIB
    assert config.exempt_local
    assert config.transport == "secure"
