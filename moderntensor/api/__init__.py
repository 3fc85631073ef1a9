"""A node's HTTP API: what it knows, for programs and people, and what its operator can do with it.

Needs the extra `http`: ``pip install 'moderntensor[http]'``.
"""

from __future__ import annotations

from ..errors import ConfigError

try:
    import aiohttp
    import msgspec
except ImportError as error:
    raise ConfigError(
        f"HTTP needs the package {error.name}: pip install 'moderntensor[http]'"
    ) from error

from .access import TOKEN_FILE, load_token
from .server import DEFAULT_PORT, ApiServer

__all__ = ["DEFAULT_PORT", "TOKEN_FILE", "ApiServer", "load_token"]

del aiohttp, msgspec
