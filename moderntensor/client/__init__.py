"""Talk to a running node over its HTTP API."""

from __future__ import annotations

from ..errors import ConfigError

try:
    import aiohttp  # noqa: F401 - asked here, so that one sentence says what is missing
    import msgspec  # noqa: F401
except ImportError as error:
    raise ConfigError(
        f"talking to a node over HTTP needs {error.name}: pip install 'moderntensor[http]'"
    ) from error

from .client import Client
from .events import EventStream
from .model import Event

__all__ = ["Client", "Event", "EventStream"]
