"""A soak in small: five real nodes, a restart or two, and all it judges."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

import pytest

from benchmarks.soak import page
from benchmarks.soak.__main__ import main
from benchmarks.soak.fleet import free_ports
from benchmarks.soak.link import FlakyLink
from benchmarks.soak.watch import inside

linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


@linux
@pytest.mark.long
def test_a_short_soak_holds(tmp_path: Path) -> None:
    out = tmp_path / "soak.json"
    given = ["--minutes", "0.33", "--every", "8", "--out", str(out), "--keep", str(tmp_path / "h")]
    assert main(given) == 0
    found = json.loads(out.read_text(encoding="utf-8"))
    assert found["sent"] > 10 and found["missing"] == 0
    assert found["restarts"] + found["kills"] > 0
    assert found["link"]["connections"] > 0


async def test_link_passes_on_stalls_and_resets() -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(100):
            writer.write(data)
        writer.close()

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    (port,) = free_ports(1)
    link = FlakyLink(port, server.sockets[0].getsockname()[1])
    await link.start()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(b"one")
        assert await reader.readexactly(3) == b"one"
        link.become("stalled")
        writer.write(b"two")
        waiting = asyncio.ensure_future(reader.readexactly(3))
        await asyncio.sleep(0.05)
        assert not waiting.done()
        link.become("clear")
        assert await waiting == b"two"
        link.become("reset")
        with pytest.raises(ConnectionResetError):
            await reader.readexactly(1)
    finally:
        writer.close()
        await link.stop()
        server.close()
    assert link.counts["connections"] == link.counts["reset"] == link.counts["stalled"] == 1
    assert link.counts["bytes"] == 12


def test_what_metrics_say_is_read() -> None:
    text = "moderntensor_tasks 31.0\nmoderntensor_head_height 7.0\nmoderntensor_tasks_x 4\n"
    assert inside(text) == {"tasks": 31.0, "height": 7.0}


def test_page_gets_the_table(tmp_path: Path) -> None:
    verdict = {"node": 0, "life": 0, "figure": "memory", "seconds": 600.0, "per_minute": 0.0}
    found = {
        "seconds": 1800.0, "seed": 1, "restarts": 20, "kills": 5, "sent": 5000, "height": 900,
        "samples": 10, "lives": 3, "machine": "2 cores", "marks": {"one head": True, "x": False},
        "verdicts": [{**verdict, "growth": 2.0 * page.MIB, "allowed": 8.0 * page.MIB}],
    }  # fmt: skip
    path = tmp_path / "soak.md"
    path.write_text(f"# Soak\n\n{page.BEGIN}\nold\n{page.END}\nend\n", encoding="utf-8")
    page.write(found, path)
    text = path.read_text(encoding="utf-8")
    assert (
        "| Memory | 1 | +2.0 MiB in 10.0 min | 8.0 MiB | +2.0 MiB in 10.0 min | 8.0 MiB |" in text
    )
    assert "| X | **missed** |" in text and "| One head | held |" in text
    assert "old" not in text and text.endswith(f"{page.END}\nend\n")
