"""Lines in user space: `python -m benchmarks.namespaces.emulator SETUP`.

Every namespace has a TUN device; this process holds the other end of all of them and carries the
packets that the kernels' own TCP makes. What netem does at a server's end of the line is done
here: each packet towards the middle of the star is lost with a chance, or delayed by `delay` ±
`jitter` seconds, uniformly and each for itself, so that packets overtake each other as they do
under netem (`ordered` keeps them in order: each leaves no sooner than the one before it). Behind
that the middle's downlink passes `rate` bits a second; what finds more than `queue` bytes waiting
before it is dropped. Packets from the middle are passed on at once: a round trip is delayed once.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import random
import select
import struct
import sys
import time
from dataclasses import asdict, dataclass
from heapq import heappop, heappush
from pathlib import Path
from typing import Any, Final

DEVICE: Final = "line"
_PACKET: Final = 2048  # bytes read at once; the devices' MTU is 1500
_BURST: Final = 64  # packets of one device before the others have their turn
_WAITING: Final = 1000  # packets of one line, netem's default limit
_TUNSETIFF: Final = 0x400454CA
_IFF_TUN, _IFF_NO_PI = 0x0001, 0x1000
_CLONE_NEWNET: Final = 0x40000000


@dataclass(slots=True)
class Counts:
    """Packets of one line towards the middle."""

    offered: int = 0
    lost: int = 0
    dropped: int = 0
    """For want of room: in the line or at the downlink."""
    bytes: int = 0
    """Delivered, with their IP headers."""


class Line:
    """One server's device."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self.counts = Counts()
        self.waiting = 0  # packets
        self.last = 0.0  # when the latest of them leaves


class Emulator:
    """All lines of one star. `setup`: namespaces, delay, jitter, loss, rate (0: none), queue,
    ordered, seed."""

    def __init__(self, setup: dict[str, Any]) -> None:
        self._delay, self._jitter = setup["delay"], setup["jitter"]
        self._loss, self._ordered = setup["loss"], setup["ordered"]
        self._rate, self._queue = setup["rate"] / 8, setup["queue"]
        self._random = random.Random(setup["seed"])
        names = setup["namespaces"]
        self._middle = open_device(names[0])
        self._lines = {
            address: Line(open_device(name))
            for name, address in zip(names[1:], setup["addresses"][1:], strict=True)
        }
        self._by_descriptor = {line.descriptor: line for line in self._lines.values()}
        self._by_address = {
            bytes(map(int, address.split("."))): line for address, line in self._lines.items()
        }
        # (when, running number, line, packet, whether it has left the line for the downlink)
        self._due: list[tuple[float, int, Line, bytes, bool]] = []
        self._number = 0
        self._free = 0.0  # when the downlink has sent all that it has

    def run(self) -> None:
        """Carry packets until stdin ends, then say what was counted."""
        watched = [0, self._middle, *self._by_descriptor]
        while True:
            wait = max(0.0, self._due[0][0] - time.monotonic()) if self._due else None
            ready, _, _ = select.select(watched, (), (), wait)
            self._pass_on()
            for descriptor in ready:
                if descriptor == 0:
                    if not os.read(0, 4096):
                        return
                elif descriptor == self._middle:
                    self._outward()
                else:
                    self._inward(self._by_descriptor[descriptor])
            self._pass_on()

    def told(self) -> dict[str, Any]:
        """What each line has carried."""
        return {address: asdict(line.counts) for address, line in self._lines.items()}

    def _outward(self) -> None:
        for packet in _read(self._middle):
            line = self._by_address.get(packet[16:20])  # the destination, in an IPv4 header
            if line is not None:
                _write(line.descriptor, packet)

    def _inward(self, line: Line) -> None:
        now = time.monotonic()
        for packet in _read(line.descriptor):
            if packet[0] >> 4 != 4:
                continue  # the kernel's own, about IPv6 neighbours
            line.counts.offered += 1
            if self._loss and self._random.random() < self._loss:
                line.counts.lost += 1
            elif line.waiting >= _WAITING:
                line.counts.dropped += 1
            else:
                when = now + self._delay
                if self._jitter:
                    when += self._random.uniform(-self._jitter, self._jitter)
                if self._ordered:
                    when = line.last = max(when, line.last)
                line.waiting += 1
                self._push(when, line, packet, False)

    def _push(self, when: float, line: Line, packet: bytes, queued: bool) -> None:
        self._number += 1
        heappush(self._due, (when, self._number, line, packet, queued))

    def _pass_on(self) -> None:
        """Move every packet on whose time has come."""
        due, now = self._due, time.monotonic()
        while due and due[0][0] <= now:
            when, _, line, packet, queued = heappop(due)
            if not queued:
                line.waiting -= 1
                if self._rate:
                    self._free = max(self._free, when)
                    if (self._free - when) * self._rate + len(packet) > self._queue:
                        line.counts.dropped += 1
                        continue
                    self._free += len(packet) / self._rate
                    self._push(self._free, line, packet, True)
                    continue
            line.counts.bytes += len(packet)
            _write(self._middle, packet)


def _read(descriptor: int) -> list[bytes]:
    packets = []
    try:
        while len(packets) < _BURST:
            packets.append(os.read(descriptor, _PACKET))
    except BlockingIOError:
        pass
    return packets


def _write(descriptor: int, packet: bytes) -> None:
    # A device that is going away takes no more: the packet is lost, as on any line.
    try:
        os.write(descriptor, packet)
    except OSError as error:
        if error.errno != 5:  # EIO
            raise


def open_device(namespace: str) -> int:
    """A TUN device in a namespace of that name, as a descriptor that does not block."""
    own = os.open("/proc/self/ns/net", os.O_RDONLY)
    other = os.open(Path("/run/netns") / namespace, os.O_RDONLY)
    try:
        _enter(other)
        try:
            descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
            request = struct.pack("16sH22x", DEVICE.encode(), _IFF_TUN | _IFF_NO_PI)
            fcntl.ioctl(descriptor, _TUNSETIFF, request)
        finally:
            _enter(own)
    finally:
        os.close(own)
        os.close(other)
    return descriptor


def _enter(namespace: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)  # os.setns: Python 3.12
    if libc.setns(namespace, _CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")


if __name__ == "__main__":
    emulator = Emulator(json.loads(sys.argv[1]))
    print(json.dumps("ready"), flush=True)
    emulator.run()
    print(json.dumps(emulator.told()), flush=True)
