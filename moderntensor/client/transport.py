"""Requests to one node, and answers no longer than they may be."""

from __future__ import annotations

import asyncio
import logging
import os
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple, TypeVar
from urllib.parse import quote, urlsplit

import aiohttp
import msgspec
from yarl import URL

from ..errors import (
    BadAnswerError,
    ClientError,
    ConfigError,
    NodeRefusedError,
    NodeUnreachableError,
)
from .model import Problem

__all__ = ["MAX_ANSWER", "Transport", "document", "path_of", "quoted"]

# Bytes of an answer. A block has 2 MiB at most, which hex and the names of fields make up to six
# times as long.
MAX_ANSWER: Final = 16 * 1024 * 1024
MAX_PROBLEM: Final = 64 * 1024  # bytes of an answer that says why not
MAX_TOKEN: Final = 4096  # characters
MAX_CALLS: Final = 8  # under way at a time, on connections that are kept alive; others wait
MAX_STREAMS: Final = 64  # of events, each on a connection of its own
MAX_DETAIL: Final = 500  # characters of a node's words that an error repeats
MAX_RETRY_AFTER: Final = 3600.0  # seconds; whoever asks for more is not believed
LONGEST_OBEYED: Final = 60.0  # seconds of it that are waited unasked: the node may be back sooner
_CHUNK: Final = 64 * 1024

T = TypeVar("T")

_PROBLEM: Final = msgspec.json.Decoder(Problem)

_log = logging.getLogger("moderntensor.client")
_LOOPBACK: Final = ("localhost", "127.0.0.1", "::1")


class Answer(NamedTuple):
    """Status and body of an answer that was not refused."""

    status: int
    body: bytes


class Transport:
    """The connections to one node. Errors are `ClientError` and name node, path and problem."""

    def __init__(
        self,
        node: str,
        *,
        token: str | None,
        token_file: Path | None,
        timeout: float,
        tls: ssl.SSLContext | None,
    ) -> None:
        self.node = checked_url(node)
        if token is not None and token_file is not None:
            raise ConfigError("token: give it or its file, not both")
        if not timeout > 0:
            raise ConfigError(f"timeout: {timeout} is not above 0 seconds")
        self.timeout = timeout
        self._token = None if token is None else checked_token("token", token)
        self._token_file = token_file
        self._tls = tls
        self._session: aiohttp.ClientSession | None = None
        self._calls = asyncio.Semaphore(MAX_CALLS)
        self._closed = False
        self.streams = 0
        """Connections that events have."""
        parts = urlsplit(self.node)
        if (token or token_file) and parts.scheme == "http" and parts.hostname not in _LOOPBACK:
            _log.warning("the token goes to %s unencrypted: https would hide it", self.node)

    async def ask(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        body: bytes | None = None,
        *,
        accept_status: tuple[int, ...] = (),
    ) -> Answer:
        """One request and its whole answer, within the time limit, in which it may wait for a
        connection. Answers other than 2xx and `accept_status` raise NodeRefusedError."""
        said = f"{method} {path}"
        problem = f"not asked: {MAX_CALLS} other calls took all of {self.timeout:g} s"
        try:
            async with asyncio.timeout(self.timeout), self._calls:
                problem = f"no answer within {self.timeout:g} s"
                async with self.open(method, path, query, body) as response:
                    if response.status // 100 == 2 or response.status in accept_status:
                        found = await self.read(said, response, MAX_ANSWER)
                        return Answer(response.status, found)
                    raise await self.refusal(said, response)
        except TimeoutError:
            raise NodeUnreachableError(self.node, said, problem) from None
        except aiohttp.ClientError as error:
            raise self.unreachable(said, error) from error

    def open(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        body: bytes | None = None,
        *,
        headers: Mapping[str, str] | None = None,
        timeout: aiohttp.ClientTimeout | None = None,
    ) -> aiohttp.client._RequestContextManager:
        """A request whose answer is still to be read."""
        sent = {"Accept": "application/json", "Accept-Encoding": "identity", **(headers or {})}
        if body is not None:
            sent["Content-Type"] = "application/json"
        if method != "GET" and (token := self._current_token()) is not None:
            sent["Authorization"] = f"Bearer {token}"
        url = URL(self.node + path, encoded=True)
        return self._connections().request(
            method,
            url.with_query(query) if query else url,
            data=body,
            headers=sent,
            allow_redirects=False,  # a token is for this node alone
            timeout=timeout or aiohttp.ClientTimeout(),
        )

    async def read(self, said: str, response: aiohttp.ClientResponse, limit: int) -> bytes:
        """The body, of at most `limit` bytes; BadAnswerError where it is longer."""
        found = bytearray()
        async for chunk in response.content.iter_chunked(_CHUNK):
            found += chunk
            if len(found) > limit:
                raise BadAnswerError(self.node, said, f"an answer of more than {limit} bytes")
        return bytes(found)

    async def refusal(self, said: str, response: aiohttp.ClientResponse) -> NodeRefusedError:
        """What the node says of why it will not."""
        detail = ""
        if response.content_type in ("application/problem+json", "application/json"):
            body = await self.read(said, response, MAX_PROBLEM)
            try:
                detail = document(body, _PROBLEM).detail
            except ValueError:
                detail = "an answer that is no problem document"
        told = f"{response.status} {printable(response.reason or '')}".strip()
        if detail:
            told += f": {printable(detail)}"
        return NodeRefusedError(self.node, said, told, response.status, _retry_after(response))

    def unreachable(self, said: str, error: Exception) -> NodeUnreachableError:
        """What an error of the connection means."""
        if isinstance(error, aiohttp.ClientConnectorCertificateError):
            problem = f"its certificate is not accepted: {error.certificate_error}"
        elif isinstance(error, aiohttp.ClientConnectorSSLError):
            # Its number is OpenSSL's own, no error of the system.
            problem = "does not speak TLS as it should: is it http:// rather than https://?"
        elif isinstance(error, aiohttp.ClientConnectorError):
            number, text = error.os_error.errno, error.os_error.strerror
            reason = os.strerror(number) if number and number > 0 else text or "no route"
            problem = f"cannot be reached: {reason.lower()}"
        elif isinstance(error, aiohttp.ServerDisconnectedError):
            problem = "closed the connection without an answer"
        else:
            problem = f"the connection broke: {printable(str(error)) or type(error).__name__}"
        return NodeUnreachableError(self.node, said, " ".join(problem.split()))

    async def close(self) -> None:
        """Close all connections; nothing can be asked any more. Idempotent."""
        self._closed = True
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    def _connections(self) -> aiohttp.ClientSession:
        if self._closed:
            raise ClientError(self.node, "-", "this client is closed")
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(
                    limit=MAX_CALLS + MAX_STREAMS, ssl=True if self._tls is None else self._tls
                ),
                auto_decompress=False,  # no small answer becomes a large one
                cookie_jar=aiohttp.DummyCookieJar(),
            )
        return self._session

    def _current_token(self) -> str | None:
        """A node writes a new token when it starts: the file is read each time."""
        if self._token_file is None:
            return self._token
        name = f"token file {self._token_file}"
        try:
            with self._token_file.open(encoding="ascii") as file:
                return checked_token(name, file.read(MAX_TOKEN + 1).strip())
        except UnicodeDecodeError as error:
            raise ConfigError(f"{name}: not ASCII") from error
        except OSError as error:
            raise ConfigError(f"{name}: {error.strerror or error}") from error


def checked_url(node: str) -> str:
    """The URL without a slash at its end; ConfigError if it names no node."""
    try:
        parts = urlsplit(node)
        usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
        (parts.hostname or "").encode("idna")  # as whoever looks it up does
    except UnicodeError as error:  # a label that is empty or too long
        raise ConfigError(f"node {printable(node)!r}: not a host name") from error
    except ValueError as error:
        raise ConfigError(f"node {printable(node)!r}: {error}") from error
    if not usable:
        raise ConfigError(f"node {printable(node)!r}: needs a URL such as http://127.0.0.1:8645")
    if parts.query or parts.fragment or parts.username is not None:
        raise ConfigError(
            f"node {printable(parts.hostname or '')!r}: only scheme, host, port, path"
        )
    return node.rstrip("/")


def checked_token(name: str, token: str) -> str:
    """The token; ConfigError, which does not repeat it, if a header cannot hold it."""
    if not token or len(token) > MAX_TOKEN or not all("!" <= c <= "~" for c in token):
        raise ConfigError(f"{name}: a token is 1 to {MAX_TOKEN} printable ASCII characters")
    return token


def document(data: bytes | str, decoder: msgspec.json.Decoder[T]) -> T:
    """What a node wrote, read; ValueError, fit for a terminal, if it is not what it should be."""
    try:
        return decoder.decode(data)
    # A string that is no UTF-8, and a document that is nested too deep, have errors of their own.
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(printable(str(error))) from error


def path_of(*parts: str) -> str:
    """A path of the API below /v1, its parts percent-encoded."""
    return "/v1/" + "/".join(map(quoted, parts))


def quoted(part: str) -> str:
    """A part of a path with everything in it encoded, `/` too."""
    return quote(part, safe="")


def printable(text: str) -> str:
    """A node's words, made fit for a terminal and not too long."""
    shown = "".join(c if c.isprintable() else "?" for c in text)
    return shown if len(shown) <= MAX_DETAIL else shown[:MAX_DETAIL] + "…"


def _retry_after(response: aiohttp.ClientResponse) -> float | None:
    text = response.headers.get("Retry-After", "")
    if not (text.isascii() and text.isdecimal() and len(text) < 10):
        return None
    return min(float(text), MAX_RETRY_AFTER)
