"""One declaration per route: where it is, what it takes, what it answers. The server's dispatch and
the OpenAPI description are both made of these."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote

import msgspec
from aiohttp import web

from .parameters import Parameter
from .problems import Refusal, shown

if TYPE_CHECKING:
    from .context import Context

__all__ = ["Call", "Content", "Route", "Router", "authority", "route"]

_BAD_PERCENT: Final = re.compile("%(?![0-9a-fA-F]{2})")
_SCHEMES: Final = ("http://", "https://")
MAX_SEGMENTS: Final = 8  # more than any route has
MAX_QUERY: Final = 16  # parameters


@dataclass(frozen=True, slots=True)
class Content:
    """An answer that is not made of the model: bytes of a type."""

    media_type: str
    schema: Mapping[str, Any] = field(default_factory=lambda: {"type": "string"})


@dataclass(slots=True)
class Call:
    """One request: its parameters and body, checked and parsed as its route says."""

    raw: web.BaseRequest
    client: str
    """The address that asks; of IPv6 the /64."""
    values: dict[str, Any]
    body: Any = None

    def __getitem__(self, name: str) -> Any:
        """A parameter's value; its default where the request does not give it."""
        return self.values[name]


Answer = msgspec.Struct | bytes | web.StreamResponse | None
Handler = Callable[["Context", Call], Awaitable[Answer]]


@dataclass(frozen=True, slots=True)
class Route:
    """One method of one path. `status` and `answer` are those of success; `problems` says when it
    refuses, by status, and `also` when it answers without content."""

    method: str
    path: str
    handler: Handler
    summary: str
    description: str
    tag: str
    status: int
    answer: type[msgspec.Struct] | Content | None
    body: type[msgspec.Struct] | None
    parameters: tuple[Parameter, ...]
    problems: Mapping[int, str]
    also: Mapping[int, str]
    free: bool
    """Not counted against the rate: probes."""

    @property
    def changes(self) -> bool:
        """Whether it needs the token."""
        return self.method != "GET"

    @property
    def name(self) -> str:
        """Of the handler; unique."""
        return getattr(self.handler, "__name__", self.path)


def route(
    method: str,
    path: str,
    answer: type[msgspec.Struct] | Content | None,
    *,
    tag: str,
    status: int = 200,
    body: type[msgspec.Struct] | None = None,
    parameters: Iterable[Parameter] = (),
    problems: Mapping[int, str] | None = None,
    also: Mapping[int, str] | None = None,
    free: bool = False,
) -> Callable[[Handler], Route]:
    """Makes a `Route` of a handler, whose docstring is its summary and description."""

    def made(handler: Handler) -> Route:
        summary, _, rest = " ".join((handler.__doc__ or "").split()).partition(". ")
        return Route(
            method,
            path,
            handler,
            summary.rstrip("."),
            rest,
            tag,
            status,
            answer,
            body,
            tuple(parameters),
            dict(problems or {}),
            dict(also or {}),
            free,
        )

    return made


class Router:
    """Finds the route of a request and parses what it gives."""

    def __init__(self, routes: Iterable[Route]) -> None:
        self.routes = tuple(routes)
        self._fixed: dict[str, dict[str, Route]] = {}
        self._open: list[tuple[tuple[str, ...], dict[str, Route]]] = []
        by_path: dict[str, dict[str, Route]] = {}
        for each in self.routes:
            by_path.setdefault(each.path, {})[each.method] = each
        for path, methods in by_path.items():
            if "{" in path:
                self._open.append((tuple(path.split("/")[1:]), methods))
            else:
                self._fixed[path] = methods

    def find(self, method: str, target: str) -> tuple[Route, dict[str, str], dict[str, str]]:
        """The route of a request, with the texts of its path and query parameters. Refuses what
        leads nowhere."""
        path, _, query = _origin(target).partition("?")
        methods, given = self._methods(path)
        wanted = "GET" if method == "HEAD" else method
        found = methods.get(wanted)
        if found is None:
            allowed = ", ".join(sorted({*methods, *(["HEAD"] if "GET" in methods else [])}))
            raise Refusal(
                405,
                f"{shown(method)} is not possible here, only {allowed}",
                headers={"Allow": allowed},
            )
        return found, given, _query(query)

    def _methods(self, path: str) -> tuple[dict[str, Route], dict[str, str]]:
        fixed = self._fixed.get(path)
        if fixed is not None:
            return fixed, {}
        segments = path.split("/")[1:]
        if len(segments) <= MAX_SEGMENTS:
            for pattern, methods in self._open:
                if len(pattern) != len(segments):
                    continue
                given = {}
                for wanted, segment in zip(pattern, segments, strict=True):
                    if wanted.startswith("{") and segment:
                        given[wanted[1:-1]] = _decoded(segment, "the path")
                    elif wanted != segment:
                        break
                else:
                    return methods, given
        raise Refusal(404, f"there is nothing at {shown(path)}; see /v1/openapi.json")

    @staticmethod
    def parse(found: Route, path: dict[str, str], query: dict[str, str]) -> dict[str, Any]:
        """The values of all parameters of a route. Refuses the first that is wrong, by name."""
        values: dict[str, Any] = {}
        for parameter in found.parameters:
            given = path if parameter.where == "path" else query
            text = given.get(parameter.name)
            if text is None:
                values[parameter.name] = parameter.default
                continue
            try:
                values[parameter.name] = parameter.parse(text)
            except ValueError as error:
                raise Refusal(400, f"{parameter.name}: {error}") from error
        for name in query:
            if not any(p.name == name and p.where == "query" for p in found.parameters):
                raise Refusal(400, f"{shown(name)}: there is no such parameter here")
        return values


def authority(target: str) -> str | None:
    """Whom a request's target names, which then stands above the Host header (RFC 9112, 3.2.2);
    None where it names nobody."""
    scheme = _scheme(target)
    return None if scheme is None else target[len(scheme) :].partition("/")[0]


def _scheme(target: str) -> str | None:
    return next((scheme for scheme in _SCHEMES if target[:8].lower().startswith(scheme)), None)


def _origin(target: str) -> str:
    """Path and query of a request's target."""
    if target.startswith("/"):
        return target
    scheme = _scheme(target)
    if scheme is None:
        raise Refusal(400, f"{shown(target)} is no path")
    _, slash, rest = target[len(scheme) :].partition("/")
    return slash + rest or "/"


def _decoded(text: str, where: str) -> str:
    if _BAD_PERCENT.search(text):
        raise Refusal(400, f"{where}: {shown(text)} has a % without two hex digits")
    try:
        return unquote(text, errors="strict")
    except UnicodeDecodeError as error:
        raise Refusal(400, f"{where}: {shown(text)} is not UTF-8") from error


def _query(text: str) -> dict[str, str]:
    found: dict[str, str] = {}
    parts = [part for part in text.split("&") if part]
    if len(parts) > MAX_QUERY:
        raise Refusal(400, f"the query: {len(parts)} parameters, at most {MAX_QUERY}")
    for part in parts:
        name, _, value = part.partition("=")
        name = _decoded(name.replace("+", " "), "the query")
        if name in found:
            raise Refusal(400, f"{shown(name)}: given twice")
        found[name] = _decoded(value.replace("+", " "), shown(name))
    return found
