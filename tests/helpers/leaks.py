"""What work leaves behind when it is done again and again: references, blocks, memory of C.

A leak grows with every call, everything else that grows (caches, free lists, a dict that becomes
larger) soon stops. So the work is done until it has settled, then counted over many calls, and
what is counted may be a little, but not something for every call.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import gc
import sys
from collections.abc import Callable, Sequence
from typing import Any

ATTEMPTS = 3  # whatever else happens in the process happens once


class _MallInfo(ctypes.Structure):
    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            "arena", "ordblks", "smblks", "hblks", "hblkhd",
            "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost",
        )
    ]  # fmt: skip


def _mallinfo() -> Callable[[], _MallInfo] | None:
    """The C library's own count of what it has handed out; glibc since 2.33 has one."""
    try:
        function = ctypes.CDLL(None).mallinfo2
    except (AttributeError, OSError, TypeError):
        return None
    function.restype = _MallInfo
    return function  # type: ignore[no-any-return]


_MALLINFO = _mallinfo()


def _c_bytes() -> int:
    if _MALLINFO is None:
        return 0
    told = _MALLINFO()
    return int(told.uordblks + told.hblkhd)


def leaves_nothing(work: Callable[[], object], *watched: object, times: int = 40) -> None:
    """Assert that `times` calls of `work` leave less behind than one thing for each call.

    Counted are the references to each of `watched`, the blocks of the interpreter's allocator
    and the bytes of the C library's. Where the interpreter or the C library do not count (with
    PYTHONMALLOC=malloc, outside of glibc) the others remain.
    """
    work()
    gc.collect()
    gc.freeze()  # the collector need not go through all that lives already
    try:
        for _ in range(ATTEMPTS):
            grown = _grown(work, watched, times)
            if all(count < times for count in grown.values()):
                return
    finally:
        gc.unfreeze()
    left = ", ".join(f"{count} {what}" for what, count in grown.items() if count >= times)
    raise AssertionError(f"{times} calls left behind: {left}")


def _grown(work: Callable[[], object], watched: Sequence[object], times: int) -> dict[str, int]:
    for _ in range(3):
        work()
    gc.collect()
    references = [sys.getrefcount(thing) for thing in watched]
    blocks = sys.getallocatedblocks()
    c_bytes = _c_bytes()
    for _ in range(times):
        work()
    gc.collect()
    grown = {
        "blocks": sys.getallocatedblocks() - blocks,
        "times 16 bytes of C": (_c_bytes() - c_bytes) // 16,  # malloc hands out no less
    }
    for thing, before in zip(watched, references, strict=True):
        grown[f"references to {_brief(thing)}"] = abs(sys.getrefcount(thing) - before)
    return grown


def _brief(thing: Any) -> str:
    text = repr(thing)
    return text if len(text) <= 40 else f"{text[:40]}…"
