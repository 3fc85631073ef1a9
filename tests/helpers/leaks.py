"""What work leaves behind when it is done again and again: references, blocks, memory of C.

A leak grows with every call, everything else that grows (caches, free lists, a dict that becomes
larger) soon stops. So the work is done until it has settled, then counted over many calls, and
what is counted may be a little, but not something for every call.
"""

from __future__ import annotations

import ctypes
import gc
import sys
from collections.abc import Callable, Sequence
from typing import Any

ATTEMPTS = 20  # whatever else happens in the process, in its other threads too, ends


class _MallInfo(ctypes.Structure):
    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            "arena", "ordblks", "smblks", "hblks", "hblkhd",
            "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost",
        )
    ]  # fmt: skip


try:
    LIBC = ctypes.CDLL(None)
    LIBC.mallinfo2.restype = _MallInfo
    LIBC.malloc.restype = ctypes.c_void_p
    LIBC.malloc.argtypes = [ctypes.c_size_t]
    LIBC.free.argtypes = [ctypes.c_void_p]
except (AttributeError, OSError, TypeError):  # only glibc, since 2.33, tells what it handed out
    LIBC = None


def _c_bytes() -> int:
    """What malloc has handed out, what it keeps for the next of that size included."""
    told = LIBC.mallinfo2()
    return int(told.uordblks + told.hblkhd)


def _counts_c() -> bool:
    """A sanitizer puts its own malloc in place, of which the C library knows nothing. And where
    every object comes from malloc, what malloc keeps for later is more than any leak."""
    if LIBC is None or not sys.getallocatedblocks():
        return False
    before = _c_bytes()
    block = LIBC.malloc(5000)
    after = _c_bytes()
    LIBC.free(block)
    return after >= before + 5000


COUNTS_C = _counts_c()


def leaves_nothing(work: Callable[[], object], *watched: object, times: int = 40) -> None:
    """Assert that `times` calls of `work` leave less behind than one thing for each call.

    Counted are the references to each of `watched`, the blocks of the interpreter's allocator
    and the bytes of the C library's. Where the interpreter or the C library do not count (with
    PYTHONMALLOC=malloc, outside of glibc, under a sanitizer) the others remain.
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
    c_bytes = _c_bytes() if COUNTS_C else 0
    for _ in range(times):
        work()
    gc.collect()
    grown = {
        "blocks": sys.getallocatedblocks() - blocks,
    }
    if COUNTS_C:
        grown["times 16 bytes of C"] = (_c_bytes() - c_bytes) // 16  # malloc hands out no less
    for thing, before in zip(watched, references, strict=True):
        grown[f"references to {_brief(thing)}"] = abs(sys.getrefcount(thing) - before)
    return grown


def _brief(thing: Any) -> str:
    text = repr(thing)
    return text if len(text) <= 40 else f"{text[:40]}…"
