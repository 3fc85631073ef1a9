"""One module a family. Each has `TITLE` and `cases(scale)`, which yields its cases one by one and
cleans up behind each."""

NAMES = (
    "framing",
    "messages",
    "headers",
    "signatures",
    "merkle",
    "storage",
    "streams",
    "handshakes",
    "node",
    "idle",
    "sync",
    "growth",
    "metrics",
)
