"""What an installed wheel must do outside the tree: import, compile nothing, encode and decode."""

from __future__ import annotations

from pathlib import Path

import moderntensor
from moderntensor import backend
from moderntensor.network.messages import MessageCodec, PingMessage

package = Path(moderntensor.__file__).parent
assert "site-packages" in package.parts, package
assert backend.NAME == "compiled", backend.NAME
assert (package / "py.typed").exists()
assert (package / "_ext" / "framing.pyi").exists()
frame = MessageCodec.encode(PingMessage(nonce=7))
assert frame == bytes.fromhex("00000009010000000000000007"), frame.hex()
assert MessageCodec.decode(frame) == PingMessage(nonce=7)
print(f"moderntensor {moderntensor.__version__}, {backend.NAME} engines, {package}")
