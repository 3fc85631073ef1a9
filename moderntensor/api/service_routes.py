"""Routes: probes, numbers for monitoring, the description of this API, and the status page."""

from __future__ import annotations

from aiohttp import web

from ..client import model
from ..errors import ConfigError
from .context import Context
from .page_files import INDEX, PageFile
from .parameters import Parameter
from .problems import Refusal, answer, shown
from .readiness import why_not_ready
from .routing import Call, Content, route

__all__ = ["ROUTES"]

_JSON_OBJECT = {"type": "object"}
_UNCHANGED = "The client has it already, by If-None-Match."
FILE_NAME = Parameter(
    "name",
    "path",
    lambda text: text,
    {"type": "string", "pattern": "^[A-Za-z0-9_.-]{1,64}$"},
    "A file of the page.",
)


@route("GET", "/healthz", model.Health, tag="service", free=True)
async def alive(api: Context, call: Call) -> model.Health:
    """Whether the process answers. For liveness probes."""
    return model.Health(status="alive")


@route(
    "GET",
    "/readyz",
    model.Health,
    tag="service",
    problems={503: "It is not; the detail says why."},
    free=True,
)
async def ready(api: Context, call: Call) -> model.Health:
    """Whether the node is fit to be asked. It follows the chain with a peer, or makes it alone; not
    while it syncs, nor once it is told to stop."""
    stopping = api.stopping
    has_state = stopping or (await api.measured.get()).has_state
    reason = why_not_ready(api.node, has_state=has_state, stopping=api.stopping)
    if reason is not None:
        raise Refusal(503, reason)
    return model.Health(status="ready")


@route(
    "GET",
    "/metrics",
    Content("text/plain"),
    tag="service",
    problems={501: "prometheus-client is not installed."},
)
async def metrics(api: Context, call: Call) -> web.StreamResponse:
    """Numbers for Prometheus. In its text format; docs/metrics.md has the names. Who asks while
    another's are being read gets the same."""
    try:
        from ..metrics import CONTENT_TYPE  # noqa: PLC0415 - an extra of its own
    except ConfigError as error:
        hint = "pip install 'moderntensor[metrics]'"
        raise Refusal(501, f"metrics need prometheus-client: {hint}") from error
    return answer(await api.scraped.get(), CONTENT_TYPE)


@route("GET", "/v1/openapi.json", Content("application/json", _JSON_OBJECT), tag="service")
async def openapi(api: Context, call: Call) -> web.StreamResponse:
    """The description of this API. OpenAPI 3.1, made from the same declarations as the API."""
    return answer(api.description, "application/json")


@route(
    "GET",
    "/",
    Content("text/html"),
    tag="service",
    also={304: _UNCHANGED},
    problems={404: "There is no page here."},
)
async def page(api: Context, call: Call) -> web.StreamResponse:
    """The status page. For people; it uses this API alone."""
    return _file(call, api.page.get(INDEX), INDEX)


@route(
    "GET",
    "/page/{name}",
    Content("*/*"),
    tag="service",
    parameters=(FILE_NAME,),
    also={304: _UNCHANGED},
    problems={404: "The page has no such file."},
)
async def page_file(api: Context, call: Call) -> web.StreamResponse:
    """A file of the status page. Scripts, styles and pictures."""
    name = call["name"]
    return _file(call, api.page.get(name) if name != INDEX else None, name)


def _file(call: Call, file: PageFile | None, name: str) -> web.StreamResponse:
    if file is None:
        raise Refusal(404, f"the page has no file {shown(name)}")
    headers = {"ETag": file.etag, "Cache-Control": "no-cache"}
    known = call.raw.headers.get("If-None-Match", "")
    if file.etag in known or known.strip() == "*":
        return answer(b"", file.media_type, status=304, headers=headers)
    return answer(file.content, file.media_type, headers=headers)


ROUTES = (alive, ready, metrics, openapi, page, page_file)
