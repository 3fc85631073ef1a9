"""Builds the compiled engines from `ext/`; everything declarative is in pyproject.toml.

`MODERNTENSOR_BUILD_PURE=1` builds without a compiler: the result carries the marker module
`moderntensor/_pure/_marker.py` and uses the pure-Python engines on purpose.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_py import build_py

BUILD_PURE = os.environ.get("MODERNTENSOR_BUILD_PURE", "") not in ("", "0")
MARKER = '"""Present only in wheels that were built pure on purpose."""\n'

SHA256 = sorted(str(path) for path in Path("ext").glob("sha256*.c"))

# What each engine compiles besides its own .pyx.
C_SOURCES = {
    "framing": [],
    "layout": [],
    "headers": SHA256,
    "merkle": SHA256,
    "signatures": [],
}


class BuildPy(build_py):
    """Adds the marker to what is built pure, so that such a wheel says what it is."""

    def run(self) -> None:
        super().run()
        if BUILD_PURE and not self.editable_mode:
            Path(self.build_lib, "moderntensor", "_pure", "_marker.py").write_text(MARKER)


def extensions() -> list[Extension]:
    from Cython.Build import cythonize  # noqa: PLC0415 - a pure build needs no Cython

    flags = ["/O2"] if sys.platform == "win32" else ["-O3", "-g0", "-fno-strict-aliasing"]
    return cythonize(
        [
            Extension(
                f"moderntensor._ext.{name}",
                [f"ext/{name}.pyx", *sources],
                include_dirs=["ext"],
                depends=sorted(
                    str(p) for p in [*Path("ext").glob("*.pxi"), *Path("ext").glob("*.h")]
                ),
                extra_compile_args=flags,
            )
            for name, sources in C_SOURCES.items()
        ],
        include_path=["ext"],
        compiler_directives={"language_level": 3, "binding": True, "embedsignature": True},
    )


setup(
    ext_modules=[] if BUILD_PURE else extensions(),
    cmdclass={"build_py": BuildPy},
    options={"build_ext": {"parallel": os.cpu_count() or 1}},
)
