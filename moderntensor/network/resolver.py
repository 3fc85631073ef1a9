"""From the name of a host to its addresses."""

from __future__ import annotations

import asyncio
import os
import socket
from typing import Final

from ..errors import ConnectError
from ..runtime import Runtime
from .addresses import canonical, format_address

__all__ = ["resolve"]

# The C library's own limit is two attempts of 5 s for each server (resolv.conf).
RESOLVE_TIMEOUT: Final = 20.0
# Of one name: what a DNS answer in one datagram (512 bytes) holds of IPv4, and as many of IPv6.
RESOLVE_LIMIT: Final = 60


async def resolve(
    runtime: Runtime,
    host: str,
    port: int,
    timeout: float = RESOLVE_TIMEOUT,  # noqa: ASYNC109
) -> list[str]:
    """The IP addresses of `host`, IPv4 and IPv6, itself if it is one; at most `RESOLVE_LIMIT`.

    Raises `ConnectError`, after `timeout` seconds at the latest. A look-up that hangs is left to
    itself, so that nothing else has to wait for it.
    """
    ip = canonical(host)
    if ip is not None:
        return [ip]
    address = format_address(host, port)
    try:
        async with asyncio.timeout(timeout):
            found = await runtime.run_detached(
                socket.getaddrinfo, host, port, type=socket.SOCK_STREAM
            )
    except TimeoutError as error:
        why = os.strerror(error.errno) if error.errno else f"no name service within {timeout:g} s"
        raise ConnectError(f"{address}: {why}") from error
    except OSError as error:
        raise ConnectError(f"{address}: {error.strerror or error}") from error
    except UnicodeError as error:  # a label that is empty or too long
        raise ConnectError(f"{address}: not a host name") from error
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))[:RESOLVE_LIMIT]
