"""What an installed wheel must do outside the tree: import, encode and decode."""

from __future__ import annotations

import sys
from pathlib import Path

import moderntensor
from moderntensor import backend
from moderntensor.network.messages import MessageCodec, PingMessage

package = Path(moderntensor.__file__).parent
frame = MessageCodec.encode(PingMessage(nonce=7))
checks = {
    "it is the installed package": "site-packages" in package.parts,
    "its engines are compiled": backend.NAME == "compiled",
    "it is marked as typed": (package / "py.typed").exists(),
    "its stubs came along": (package / "_ext" / "framing.pyi").exists(),
    "it encodes": frame == bytes.fromhex("00000009010000000000000007"),
    "it decodes": MessageCodec.decode(frame) == PingMessage(nonce=7),
}
for name, holds in checks.items():
    if not holds:
        sys.exit(f"not so: {name} ({package})")
print(f"moderntensor {moderntensor.__version__}, {backend.NAME} engines, {package}")
