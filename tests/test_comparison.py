"""The frame of the comparison: what it concludes from samples, and the plain design beside us.

What it measures is run by `python -m benchmarks.compare`, not here.
"""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
from pathlib import Path
from typing import Any

import pytest
from compare import families, page, report
from compare.case import OURS, Case, Contender, Mark, Scale, run_case
from compare.plain.codec import CodecError, PlainHello, decode_frames, encode_frames, to_plain
from compare.plain.headers import (
    HeaderError,
    PlainHeader,
    PlainRules,
    check_headers,
    decode_headers,
    encode_headers,
)
from compare.plain.merkle import merkle_root
from compare.plain.peer import PlainNode, PlainPeer
from compare.timing import calls
from rich.console import Console

from moderntensor.network.messages import HelloMessage

QUICK = Scale(quick=True)


def given(name: str, *rates: float) -> Contender:
    """A contender whose repetitions come out as told."""
    left = iter(rates)
    return Contender(name, lambda: next(left))


def case(*contenders: Contender, marks: tuple[Mark, ...] = (), better: str = "higher") -> Case:
    return Case("work", "things/s", contenders, marks, better=better)


def test_ratio_is_the_median_of_the_rounds() -> None:
    # The machine became ten times slower in the second round: no contender gains by it.
    outcome = run_case(case(given(OURS, 40, 4, 50), given("other", 10, 1, 10)), QUICK)
    assert outcome.ratio(OURS, "other").median == 4
    assert (outcome.spread("other").low, outcome.spread("other").high) == (1, 10)


def test_contenders_take_turns_at_being_first() -> None:
    order: list[str] = []

    def sampled(name: str) -> Contender:
        return Contender(name, lambda: float(order.append(name) is None))

    run_case(case(sampled("a"), sampled("b"), sampled("c")), QUICK)
    assert order == ["a", "b", "c", "b", "c", "a", "c", "a", "b"]


def test_the_best_of_several_counts() -> None:
    mark = Mark(3.0, ("slow", "fast"))
    contenders = (given(OURS, 8, 8, 8), given("slow", 2, 2, 2), given("fast", 4, 4, 4))
    verdict = run_case(case(*contenders, marks=(mark,)), QUICK).verdict(mark)
    assert (verdict.against, verdict.figure.median, verdict.met) == ("fast", 2.0, False)


@pytest.mark.parametrize(("amount", "met"), [(47.0, True), (48.0, True), (49.0, False)])
def test_amounts_have_limits(amount: float, met: bool) -> None:
    mark = Mark(48.0)
    work = case(given(OURS, *[amount] * 3), marks=(mark,), better="lower")
    assert run_case(work, QUICK).verdict(mark).met is met
    if amount != 48.0:
        more = case(given(OURS, *[amount] * 3), marks=(mark,))
        assert run_case(more, QUICK).verdict(mark).met is not met


def test_of_lower_amounts_the_lower_is_better() -> None:
    outcome = run_case(case(given(OURS, 2, 2, 2), given("other", 6, 6, 6), better="lower"), QUICK)
    assert outcome.ratio(OURS, "other").median == 3


def test_a_different_result_ends_the_run_before_anything_is_timed() -> None:
    def check() -> None:
        raise AssertionError("not the same")

    def never() -> float:
        raise RuntimeError("timed")

    with pytest.raises(AssertionError, match="not the same"):
        run_case(Case("work", "things/s", (Contender(OURS, never),), check=check), QUICK)


def test_calls_counts_units() -> None:
    seen: list[tuple[int, int]] = []
    contender = calls(QUICK, OURS, lambda a, b: seen.append((a, b)), 1, 2, units=10)
    rate = contender.sample()
    assert rate > 0
    assert set(seen) == {(1, 2)}


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [(0.5, "", "0.50"), (4_210_000, "headers/s", "4.21M headers/s"), (999.6, "B", "1000 B")],
)
def test_amounts_as_text(value: float, unit: str, text: str) -> None:
    assert report.amount(value, unit) == text


def test_ratios_as_text() -> None:
    assert [report.ratio(v) for v in (1.234, 12.34, 123.4)] == ["1.23×", "12.3×", "123×"]
    assert report.ratio(0.853, percent=True) == "85 %"


def content(name: str, outcome: Any) -> dict[str, Any]:
    return {
        "family": name,
        "title": "Framing",
        "quick": False,
        "when": "2026-01-01T00:00:00+00:00",
        "machine": {
            "processor": "a processor",
            "cores": 2,
            "system": "Linux",
            "python": "3.11",
            "compiler": "GCC",
            "openssl": "OpenSSL 3",
            "sha256": "portable",
            "packages": {"rlp": "4.0", "picows": None},
        },
        "cases": [report.as_json(outcome)],
    }


def test_results_travel_through_files_to_the_page(tmp_path: Path) -> None:
    mark = Mark(5.0, ("other",), bound="the other is good, too")
    other = Contender("other", iter([10.0, 10.0, 10.0]).__next__, differs="it cheats")
    outcome = run_case(case(given(OURS, 40, 40, 50), other, marks=(mark,)), QUICK)
    path = report.write(tmp_path, families.NAMES[0], content(families.NAMES[0], outcome))
    assert json.loads(path.read_text(encoding="utf-8"))["cases"][0]["marks"][0]["met"] is False
    text = "\n".join(page.figures(page.load(tmp_path)))
    assert "| 5.00× | **4.00×** | 4.00× – 5.00× | **missed** (1) |" in text
    assert "1. work, against other: the other is good, too" in text
    assert "1. work, other: it cheats" in text
    assert "rlp 4.0." in text
    assert "picows" not in text


def test_terminal_shows_marks_rates_and_remarks() -> None:
    mark = Mark(5.0, ("other",), bound="of the other's speed")
    outcome = run_case(
        case(given(OURS, 40, 40, 40), given("other", 10, 10, 10), marks=(mark,)), QUICK
    )
    console = Console(width=120, record=True, file=io.StringIO())
    report.show(console, "Work", [outcome])
    text = console.export_text()
    assert "missed, because of the other's speed" in text
    assert "≥ 5.00×" in text


def test_every_family_is_there() -> None:
    here = Path(families.__file__).parent
    assert sorted(path.stem for path in here.glob("[!_]*.py")) == sorted(families.NAMES)


# --- the plain design works ------------------------------------------------------------------


def test_plain_frames() -> None:
    frames = [(1, b"a" * 8), (0x13, b""), (2, b"x" * 70_000)]
    data = encode_frames(frames)
    assert decode_frames(data) == frames
    for cut in (3, 12, len(data) - 1):
        with pytest.raises(CodecError):
            decode_frames(data[:cut])


def test_plain_message_keeps_every_field() -> None:
    ours = HelloMessage(
        genesis_hash=b"\1" * 32,
        best_hash=b"\2" * 32,
        node_id=b"\3" * 32,
        observed_ip=b"\4" * 16,
        capabilities=("sync/1",),
        user_agent="someone",
        nonce=2**63,
    )
    hello = to_plain(ours, PlainHello)
    [(kind, payload)] = decode_frames(hello.encode())
    assert kind == HelloMessage.TYPE
    assert PlainHello.decode(payload) == hello
    assert bytes.fromhex(hello.node_id) == ours.node_id
    with pytest.raises(CodecError):
        PlainHello.decode(b"[1]")


def plain_chain(count: int) -> list[PlainHeader]:
    headers: list[PlainHeader] = []
    previous = "00" * 32
    for height in range(1, count + 1):
        header = PlainHeader(
            1, height, 12 * height, previous, "", "", "", "aa", 0, 30_000_000, "", ""
        )
        headers.append(header)
        previous = header.hash
    return headers


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("version", 2),
        ("gas_limit", 1),
        ("gas_used", 30_000_001),
        ("height", 9),
        ("previous_hash", "11" * 32),
        ("timestamp", 12),
        ("timestamp", 10**9),
        ("validator", "bb"),
    ],
)
def test_plain_rules_find_what_is_wrong(field: str, value: Any) -> None:
    rules = PlainRules(0, 12, 30_000_000, ("aa",))
    headers = plain_chain(5)
    received = decode_headers(encode_headers(headers))
    check_headers(received, "00" * 32, 0, 0, rules, now=1000)
    setattr(received[3], field, value)
    with pytest.raises(HeaderError, match=r"^[49]: "):
        check_headers(received, "00" * 32, 0, 0, rules, now=1000)


def test_plain_merkle_root_of_three() -> None:
    def node(mark: bytes, *parts: bytes) -> bytes:
        return hashlib.sha256(mark + b"".join(parts)).digest()

    a, b, c = (node(b"\0", leaf) for leaf in (b"a", b"b", b"c"))
    assert merkle_root([b"a", b"b", b"c"]) == node(b"\1", node(b"\1", a, b), c)
    assert merkle_root([]) == bytes(32)


async def test_plain_peers_ask_and_answer() -> None:
    async def handler(peer: PlainPeer, kind: int, payload: bytes) -> None:
        message = json.loads(payload)
        if kind == 1:
            await peer.send_json(2, message)
        else:
            peer.replied(message)

    server, client = PlainNode(handler), PlainNode(handler)
    await server.start()
    try:
        peer = await client.connect("127.0.0.1", server.port)
        replies = await asyncio.gather(*(peer.request(1, {"x": x}) for x in range(3)))
        assert [reply["x"] for reply in replies] == [0, 1, 2]
    finally:
        await client.stop()
        await server.stop()
