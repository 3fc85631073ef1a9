"""What one server admits and holds, each with its reason. Times in seconds, sizes in bytes."""

from __future__ import annotations

from typing import Final

MAX_BODY: Final = 264 * 1024  # the largest transaction in hex takes 256 KiB
MAX_LINE: Final = 8 * 1024  # of the request line, and of one header: what most servers take
MAX_HEADERS: Final = 64
MAX_LIMIT: Final = 500  # items of one answer
DEFAULT_LIMIT: Final = 20
MAX_EXACT: Final = (1 << 53) - 1  # the largest number that every reader of JSON keeps

MAX_CONNECTIONS: Final = 256  # a quarter of the descriptors that most systems give a process
BACKLOG: Final = 128
FIRST_REQUEST: Final = 10.0  # until the headers of the first request are here
KEEP_ALIVE: Final = 30.0  # until those of the next one are
BODY_TIME: Final = 10.0  # for all of a request's body
REQUEST_TIME: Final = 20.0  # until the answer is made; dialling a peer takes 15 at most
SEND_TIME: Final = 30.0  # until the client has taken it
LINGER: Final = 1.0  # in which the rest of a body that nobody wants is read
STOP_TIME: Final = 2.0  # for requests under way, once the server stops

READS: Final = 2  # of the store at a time; fewer where the node has no more worker threads
READS_WAITING: Final = 256  # more than one address may ask for at once; those with most yield
MEASURED_FOR: Final = 1.0  # what probes and the status page ask for is as old at most
LARGE_ANSWER: Final = 256 * 1024
LARGE_ANSWERS: Final = 64 * 1024 * 1024  # all that clients have not taken yet, of large ones
BODIES_OF_PAGE: Final = 32 * 1024 * 1024  # read for one page of an account's transactions
BODIES_COUNTED: Final = 8 * 1024 * 1024  # read to count the transactions of listed headers

PAGE_BYTES: Final = 4 * 1024 * 1024  # of listed transactions; JSON doubles it, clients take 16 MiB

RATE: Final = 50.0  # requests a second of one address (of IPv6: of its /64)
BURST: Final = 200  # at once
ADDRESSES: Final = 4096  # whose rates are remembered

EVENTS_KEPT: Final = 1024  # for those who come back: about a mebibyte
LISTENERS: Final = 64  # where all are taken, the address with most of them gives one up
LISTENER_WRITE: Final = 64 * 1024  # handed to a listener's socket at once
LISTENER_STALL: Final = 60.0  # without taking anything: it is gone
COMMENT_INTERVAL: Final = 15.0  # so that nobody on the way takes the stream for dead
HEAD_INTERVAL: Final = 0.2  # between two heads that are told while they follow each other
SYNC_INTERVAL: Final = 1.0
PAGE_FILES: Final = 64
