"""Who may ask what: the Host header, and the token for whatever changes something."""

from __future__ import annotations

import hmac
import logging
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from ..errors import ConfigError
from ..network.addresses import canonical
from ..runtime import Runtime
from .problems import Refusal, shown

__all__ = ["TOKEN_FILE", "Access", "load_token"]

log = logging.getLogger(__name__)

TOKEN_FILE: Final = "http.token"  # noqa: S105 - a file's name
TOKEN_BYTES: Final = 32
_TOKEN: Final = re.compile(r"[!-~]{16,256}")
_HOST: Final = re.compile(r"(\[[^\[\]]*\]|[^\[\]:]*)(:[0-9]{0,5})?")
_NAMES: Final = ("localhost",)


class Access:
    """Decides on the headers of a request."""

    def __init__(self, token: str | None, host: str, allowed_hosts: Iterable[str] = ()) -> None:
        """`host` is the address that is listened on; `allowed_hosts` are names by which clients
        may call it besides. Raises ConfigError for a token that no header could carry."""
        if token is not None and not _TOKEN.fullmatch(token):
            raise ConfigError("the token must be 16 to 256 printable characters without blanks")
        self._token = None if token is None else token.encode()
        self._hosts = {name.lower().rstrip(".") for name in (*_NAMES, host, *allowed_hosts)}

    def check_host(self, named: str | None) -> None:
        """Refuse a name that is not ours, as a request gives it (`host` or `host:port`): a web page
        elsewhere could have had it resolve to this address, to ask in its visitor's name. An IP
        address proves that nobody did."""
        found = _HOST.fullmatch((named or "").strip().lower())
        name = found[1] if found else ""
        if name.startswith("["):
            ours = canonical(name[1:-1]) is not None
        else:
            ours = canonical(name) is not None or name.rstrip(".") in self._hosts
        if not ours:
            raise Refusal(
                403,
                f"Host {shown(named or '')}: this node does not go by that name (--http-allow-host"
                " adds one)",
            )

    def check_token(self, header: str | None) -> None:
        """Refuse who does not give the token."""
        if self._token is None:
            raise Refusal(403, "this server was started without a token: nothing can be changed")
        scheme, _, given = (header or "").partition(" ")
        if scheme.lower() != "bearer" or not given.strip():
            raise _unknown("this needs the node's token: 'Authorization: Bearer …'")
        # In constant time, so that nothing is learned of its beginning.
        same = hmac.compare_digest(given.strip().encode("utf-8", "replace"), self._token)
        if not same:
            raise _unknown("the token is not that of this node")


def _unknown(detail: str) -> Refusal:
    return Refusal(401, detail, headers={"WWW-Authenticate": 'Bearer realm="moderntensor"'})


def load_token(path: Path, runtime: Runtime) -> str:
    """The token in a file, which is made, readable by its owner alone, if it is missing. Raises
    ConfigError."""
    try:
        try:
            made = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except FileExistsError:
            with path.open(encoding="ascii") as file:
                text = file.read(1024).strip()  # of a device there is no end
            if path.stat().st_mode & 0o077:
                log.warning("%s: others can read the token; 'chmod 600' it", path)
        else:
            text = runtime.entropy(TOKEN_BYTES).hex()
            try:
                with os.fdopen(made, "w", encoding="ascii") as file:
                    file.write(text + "\n")
            except OSError:
                path.unlink(missing_ok=True)  # an empty one would be in the way for good
                raise
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"token file {path}: {getattr(error, 'strerror', None) or error}") from (
            error
        )
    if not _TOKEN.fullmatch(text):
        raise ConfigError(f"token file {path}: needs one line of 16 to 256 characters")
    return text
