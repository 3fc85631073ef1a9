"""What to do about an error, in a few words."""

from __future__ import annotations

from urllib.parse import urlsplit

from ..errors import ModernTensorError, NodeRefusedError, NodeUnreachableError

__all__ = ["hint_for"]


def hint_for(error: Exception) -> str:
    """The hint with a space and parentheses around it, or nothing."""
    hint = _hint(error) if isinstance(error, ModernTensorError) else ""
    return f" ({hint})" if hint else ""


def _hint(error: ModernTensorError) -> str:
    if isinstance(error, NodeUnreachableError):
        parts = urlsplit(error.node)
        where = parts.netloc or "127.0.0.1:8645"
        return (
            "is it running? moderntensor node --data DIR --genesis FILE --http "
            f"{where}; another one: --node URL"
        )
    if isinstance(error, NodeRefusedError):
        if error.status in (401, 403) and not error.path.startswith("GET "):
            return "the token is in the node's data directory: --data DIR, or --token-file FILE"
        if error.status == 429 and error.retry_after:
            return f"try again in {error.retry_after:g} s"
    return ""
