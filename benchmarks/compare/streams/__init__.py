"""Streams between two processes over loopback TCP: one sends messages, the other takes each as
`bytes` of its own and counts. One module per kind of connection, each with a `Sender`, which
listens, and a `Receiver`, which dials: so no WebSocket here has to mask what it sends.

    python -m benchmarks.compare.streams 64 moderntensor picows

runs some kinds alone and tells what a message costs either end: the dearer one bounds the rate.
"""

from ..case import OURS

ONE_BY_ONE = "moderntensor, one by one"
ENCRYPTED = "moderntensor, encrypted"
PURE = "pure"
TLS = "asyncio TLS"
PLAIN = "plain"
RAW = "raw sockets"
WEBSOCKETS = ("picows", "websockets", "aiohttp")

# Which module here has the two ends.
KINDS = {
    OURS: "ours",
    ONE_BY_ONE: "ours_one_by_one",
    ENCRYPTED: "ours_encrypted",
    PURE: "ours",  # told by the environment
    "picows": "with_picows",
    "websockets": "with_websockets",
    "aiohttp": "with_aiohttp",
    TLS: "tls",
    PLAIN: "with_plain",
    RAW: "raw",
}
