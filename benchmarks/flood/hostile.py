"""Thirty hostile peers, five of each kind: `python -m benchmarks.flood.hostile SETUP`.

Each holds one connection and does its worst on it; dropped, it comes again from another address
of another network, after a pause of `PAUSE`. They are as quick as the node lets them be and as one
process of Python is: what processor time they take is reported beside the result, since on the
machine of the measurement they take it from the node and from the peer that is measured.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import random
import struct
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from adversity import wire
from adversity.control import obey
from adversity.hostile import Hostile, Target

OF_EACH_KIND = 5
PAUSE = 0.1  # seconds between the end of a connection and the next attempt
SLOW = 0.05  # seconds between two bytes of a slow frame
TURN = 0.005  # seconds between two batches of a flood, for which no reply is awaited


class Attack:
    """All of them, until `stop`."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self.connections: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()
        self.sent: Counter[str] = Counter()
        self._hosts = itertools.count()
        self._stopped = threading.Event()
        self._threads: list[threading.Thread] = []

    def start(self) -> bool:
        for kind in KINDS:
            for _ in range(OF_EACH_KIND):
                thread = threading.Thread(target=self._run, args=(kind,), daemon=True)
                thread.start()
                self._threads.append(thread)
        return True

    def stop(self) -> dict[str, Any]:
        self._stopped.set()
        for thread in self._threads:
            thread.join(10)
        return {
            "connections": dict(self.connections),
            "refused": dict(self.refused),
            "megabytes_sent": {kind: n / 1e6 for kind, n in self.sent.items()},
        }

    def _host(self) -> str:
        n = next(self._hosts)
        return f"127.{1 + n % 254}.{n // 254 % 254}.{2 + n // 64516 % 250}"

    def _run(self, kind: str) -> None:
        while not self._stopped.is_set():
            try:
                with Hostile(self.target, self._host(), timeout=5) as peer:
                    self.connections[kind] += 1
                    KINDS[kind](self, peer, kind)
            except (OSError, EOFError, AssertionError):
                self.refused[kind] += 1
            self._stopped.wait(PAUSE)

    # --- what they do ----------------------------------------------------------------------

    def _meet(self, peer: Hostile, **hello: Any) -> None:
        peer.secure()
        peer.send(wire.frame(wire.HELLO, peer.make_hello(**hello).encode()))
        assert peer.read()[0] == wire.HELLO

    def _send(self, peer: Hostile, kind: str, data: bytes) -> None:
        peer.send(data)
        self.sent[kind] += len(data)

    def garbage(self, peer: Hostile, kind: str) -> None:
        """Noise in place of a handshake, or behind one."""
        if random.random() < 0.5:
            peer.sock.sendall(os.urandom(4096))
            peer.sock.recv(4096)
            return
        self._meet(peer)
        while not self._stopped.is_set():
            self._send(peer, kind, os.urandom(65536))
            time.sleep(TURN)

    def flood(self, peer: Hostile, kind: str) -> None:
        """Requests for the largest replies and PINGs, whatever comes back read and forgotten."""
        self._meet(peer)
        drain = threading.Thread(target=_drain, args=(peer,), daemon=True)
        drain.start()
        batch = b"".join(
            wire.get_blocks(i, 1, 2**40, 512) + wire.get_headers(1000 + i, 1, 2048) + wire.ping(i)
            for i in range(1, 33)
        )
        try:
            while not self._stopped.is_set() and drain.is_alive():
                self._send(peer, kind, batch)
                time.sleep(TURN)
        finally:
            peer.sock.shutdown(2)
            drain.join(5)

    def slow_frames(self, peer: Hostile, kind: str) -> None:
        """All of a large frame but its end, which comes byte by byte."""
        self._meet(peer)
        self._send(peer, kind, struct.pack(">IB", 1 + 2 * wire.MIB, wire.NEW_BLOCK))
        self._send(peer, kind, bytes(2 * wire.MIB - 4000))
        while not self._stopped.is_set():
            self._send(peer, kind, b"\0")
            time.sleep(SLOW)

    def never_reading(self, peer: Hostile, kind: str) -> None:
        """Asks for all there is and leaves it lying."""
        self._meet(peer)
        for i in itertools.count(1):
            if self._stopped.is_set():
                break
            self._send(peer, kind, wire.get_blocks(i, 1, 2**40, 512))
            time.sleep(TURN)

    def giant_claims(self, peer: Hostile, kind: str) -> None:
        """Of a head that nobody has, and of frames that nobody may send."""
        if random.random() < 0.5:
            self._meet(peer, best_height=2**40, best_hash=os.urandom(32))
            peer.sock.settimeout(2)
            _drain(peer)
        else:
            self._meet(peer)
            self._send(peer, kind, struct.pack(">IB", 0xFFFF_FFFF, wire.NEW_BLOCK))
            _drain(peer)

    def unasked_replies(self, peer: Hostile, kind: str) -> None:
        self._meet(peer)
        blocks = wire.blocks(9, [bytes(1000)] * 100)
        announced = wire.headers(0, [])
        self._send(peer, kind, announced * 64)
        self._send(peer, kind, random.choice([blocks, wire.bodies(9, [bytes(9)]), announced * 999]))
        _drain(peer)


def _drain(peer: Hostile) -> None:
    try:
        while peer.sock.recv(1 << 18):
            pass
    except OSError:
        pass


KINDS: dict[str, Callable[[Attack, Hostile, str], None]] = {
    "garbage": Attack.garbage,
    "floods": Attack.flood,
    "slow frames": Attack.slow_frames,
    "never reading": Attack.never_reading,
    "giant claims": Attack.giant_claims,
    "unasked replies": Attack.unasked_replies,
}


async def run(setup: dict[str, Any]) -> None:
    attack = Attack(
        Target(setup["port"], bytes.fromhex(setup["node_id"]), bytes.fromhex(setup["genesis"]))
    )
    await obey({"start": attack.start, "stop": attack.stop}, {})


if __name__ == "__main__":
    asyncio.run(run(json.loads(sys.argv[1])))
