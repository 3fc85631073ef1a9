"""What the figures were measured on, and with which versions."""

from __future__ import annotations

import os
import platform
import ssl
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import moderntensor
from moderntensor import backend

PACKAGES = (
    "aiohttp",
    "btclib-libsecp256k1",
    "coincurve",
    "cryptography",
    "lmdb",
    "msgspec",
    "picows",
    "protobuf",
    "pycryptodome",
    "rlp",
    "websockets",
)


def describe() -> dict[str, Any]:
    """The machine, the interpreter, the versions of everything that takes part."""
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "compiler": platform.python_compiler(),
        "moderntensor": moderntensor.__version__,
        "commit": _commit(),
        "engines": backend.NAME,
        "sha256": backend.headers.sha256_implementation(),
        "openssl": ssl.OPENSSL_VERSION,
        "packages": {name: _version(name) for name in PACKAGES},
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return platform.processor() or "unknown"
    return next(
        (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")),
        platform.processor() or "unknown",
    )


def _commit() -> str | None:
    """The commit that is measured, with a + behind it if the tree has changes."""
    here = Path(__file__).parent
    try:
        told = subprocess.run(
            ["git", "describe", "--always", "--dirty=+", "--abbrev=12"],  # noqa: S607
            cwd=here,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return told.stdout.strip() or None


if __name__ == "__main__":
    import json

    json.dump(describe(), sys.stdout, indent=2)
