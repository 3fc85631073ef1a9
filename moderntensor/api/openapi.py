"""The API's OpenAPI 3.1 description, made from the routes and the model."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterable
from functools import cache
from typing import Any, Final

import msgspec

from .._version import VERSION
from ..client import model
from .limits import MAX_EXACT
from .problems import PROBLEM_TYPE
from .routing import Content, Route

__all__ = ["describe"]

_REF: Final = "#/components/schemas/{name}"
_COMMON: Final = {
    400: "The request is wrong; the detail names what.",
    403: "The Host header names another than this node.",
    429: "Too many requests; see Retry-After.",
    503: "The node cannot answer now.",
}
_CHANGING: Final = {
    401: "The token is missing or wrong.",
    403: "The Host header names another than this node, or it was started without a token.",
}
_WITH_BODY: Final = {
    408: "The body did not come in time.",
    413: "The body is too large.",
    415: "The body is not said to be JSON.",
}
_TAGS: Final = {
    "node": "What the node is and does",
    "peers": "Who it is connected to, and who is kept away",
    "chain": "Headers, blocks, transactions and accounts",
    "mempool": "Transactions that wait",
    "service": "Probes, monitoring, this description, the page",
}


def describe(routes: Iterable[Route]) -> bytes:
    """The document, as JSON."""
    routes = tuple(routes)
    paths: dict[str, dict[str, Any]] = {}
    for each in routes:
        paths.setdefault(each.path, {})[each.method.lower()] = _operation(each)
    document = {
        "openapi": "3.1.0",
        "info": {
            "title": "moderntensor node",
            "version": VERSION,
            "description": "What a node knows, and what its operator can do. Amounts are decimal"
            " strings, times Unix seconds, durations seconds, sizes bytes. Integers are below 2^53"
            " but where a maximum of 2^64-1 is said.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "tags": [{"name": name, "description": text} for name, text in _TAGS.items()],
        "paths": paths,
        "components": {
            "schemas": _schemas(routes),
            "securitySchemes": {
                "token": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "The contents of http.token in the node's data directory.",
                }
            },
        },
    }
    return msgspec.json.encode(document)


def _operation(each: Route) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": each.name,
        "summary": each.summary,
        "tags": [each.tag],
        "responses": _responses(each),
    }
    if each.description:
        operation["description"] = each.description
    if each.parameters:
        operation["parameters"] = [
            {
                "name": parameter.name,
                "in": parameter.where,
                "required": parameter.where == "path",
                "description": parameter.description,
                "schema": dict(parameter.schema),
            }
            for parameter in each.parameters
        ]
    if each.body is not None:
        schema = {"$ref": _REF.format(name=each.body.__name__)}
        operation["requestBody"] = {
            "required": True,
            "content": {"application/json": {"schema": schema}},
        }
    if each.changes:
        operation["security"] = [{"token": []}]
    return operation


def _responses(each: Route) -> dict[str, Any]:
    problems = {
        **_COMMON,
        **(_CHANGING if each.changes else {}),
        **(_WITH_BODY if each.body is not None else {}),
        **each.problems,
    }
    said: dict[str, Any] = {"description": each.summary}
    if isinstance(each.answer, Content):
        said["content"] = {each.answer.media_type: {"schema": dict(each.answer.schema)}}
    elif each.answer is not None:
        schema = {"$ref": _REF.format(name=each.answer.__name__)}
        said["content"] = {"application/json": {"schema": schema}}
    problem = {PROBLEM_TYPE: {"schema": {"$ref": _REF.format(name="Problem")}}}
    refused = {
        str(status): {"description": text, "content": problem}
        for status, text in sorted(problems.items())
    }
    also = {str(status): {"description": text} for status, text in each.also.items()}
    return {str(each.status): said, **also, **refused}


def _schemas(routes: tuple[Route, ...]) -> dict[str, Any]:
    """Of all types that are sent or taken, with the words that the model has for each field."""
    types: list[Any] = [model.Problem, model.Event]
    for each in routes:
        types += [t for t in (each.answer, each.body) if isinstance(t, type)]
    _, schemas = msgspec.json.schema_components(dict.fromkeys(types), ref_template=_REF)
    for name, schema in schemas.items():
        words = _field_words().get(name, {})
        for field, found in schema.get("properties", {}).items():
            if field in words:
                found.setdefault("description", words[field])
            for kind in (found, *found.get("anyOf", ())):
                if kind.get("type") == "integer":
                    kind.setdefault("minimum", 0)
                    kind.setdefault("maximum", MAX_EXACT)
    return dict(sorted(schemas.items()))


@cache
def _field_words() -> dict[str, dict[str, str]]:
    """The text under each field of the model's classes, by class and field."""
    found: dict[str, dict[str, str]] = {}
    for node in ast.parse(inspect.getsource(model)).body:
        if not isinstance(node, ast.ClassDef):
            continue
        words = found.setdefault(node.name, {})
        for field, after in zip(node.body, node.body[1:], strict=False):
            if (
                isinstance(field, ast.AnnAssign)
                and isinstance(field.target, ast.Name)
                and isinstance(after, ast.Expr)
                and isinstance(after.value, ast.Constant)
                and isinstance(after.value.value, str)
            ):
                words[field.target.id] = " ".join(after.value.value.split())
    return found
