"""Refusals, and what every answer says beside its content."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Final

import msgspec
from aiohttp import web

from ..client.model import Problem
from ..network.text import printable

__all__ = ["PROBLEM_TYPE", "SECURITY_HEADERS", "Refusal", "answer", "shown"]

PROBLEM_TYPE: Final = "application/problem+json"
QUOTED: Final = 80  # characters of a stranger's text in an answer

SECURITY_HEADERS: Final = {
    "Server": "moderntensor",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
}


class Refusal(Exception):  # noqa: N818 - an answer, not an error of ours
    """The request is answered with a `Problem`."""

    def __init__(
        self, status: int, detail: str, *, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(status, detail)
        self.status = status
        self.detail = detail
        self.headers = headers or {}

    def response(self) -> web.Response:
        """As the client gets it."""
        problem = Problem(
            status=self.status, title=HTTPStatus(self.status).phrase, detail=self.detail
        )
        body = msgspec.json.encode(problem)
        return answer(body, PROBLEM_TYPE, status=self.status, headers=self.headers)


def answer(
    body: bytes,
    content_type: str,
    *,
    status: int = 200,
    headers: Mapping[str, str] | None = None,
) -> web.Response:
    """An answer with the headers that all have; nobody may keep it unless `headers` say so."""
    said = {**SECURITY_HEADERS, "Cache-Control": "no-store", **(headers or {})}
    if status != HTTPStatus.NO_CONTENT:
        said["Content-Type"] = content_type
    return web.Response(body=body, status=status, headers=said)


def shown(text: str) -> str:
    """As much of a client's text as an answer quotes."""
    return repr(printable(text, QUOTED))
