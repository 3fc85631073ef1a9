"""The description is true: a live node is asked what it describes, and much that it does not."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from helpers.http_scene import ACCOUNTS, TOKEN, Scene, scene, transfer
from hypothesis import HealthCheck, Phase, given, seed, settings
from jsonschema import Draft202012Validator

from moderntensor.api.server import ROUTES

EXAMPLES = 3  # of each route; the slow campaign has a hundred
STREAM = "/v1/events"


async def described(made: Scene) -> dict[str, Any]:
    return dict(await made.get("/v1/openapi.json"))


async def test_every_route_is_described_and_nothing_else(served: Scene) -> None:
    document = await described(served)
    paths = {(method.upper(), path) for path, of in document["paths"].items() for method in of}
    assert paths == {(route.method, route.path) for route in ROUTES}
    names = [of["operationId"] for each in document["paths"].values() for of in each.values()]
    assert len(names) == len(set(names))
    text = json.dumps(document)
    for name, schema in document["components"]["schemas"].items():
        Draft202012Validator.check_schema(schema)
        assert f'"#/components/schemas/{name}"' in text or name.endswith("Event")
    head = document["components"]["schemas"]["Head"]["properties"]["age"]
    assert head["description"] == "Seconds since its timestamp, by the node's clock."


async def test_every_integer_says_how_large_it_may_be(served: Scene) -> None:
    """For readers that keep no more than 53 bits."""
    document = await described(served)
    large = set()
    for name, schema in document["components"]["schemas"].items():
        for field, found in schema.get("properties", {}).items():
            for kind in (found, *found.get("anyOf", ())):
                if kind.get("type") == "integer":
                    assert kind["minimum"] == 0, (name, field)
                    assert kind["maximum"] in (2**53 - 1, 2**64 - 1), (name, field)
                    if kind["maximum"] > 2**53:
                        large.add(field)
    assert large == {"chain_id", "network_id", "nonce", "next_nonce", "gas_limit", "gas_used"}


async def test_answers_are_as_described(pair: Scene) -> None:
    """Each route with what the chain really has, so that no answer is a 404."""
    document = await described(pair)
    block = pair.node.chain.get_block(2)
    assert block is not None
    tx = transfer(pair.node)
    pair.node.mempool.add(tx)
    values = {"ref": "2", "hash": tx.hash.hex(), "address": ACCOUNTS[0].address.hex()}
    for route in ROUTES:
        if route.method != "GET" or route.path in (STREAM, "/page/{name}"):
            continue
        got = await pair.ask("GET", route.path.format(**values))
        assert got.status in (200, 503), route.path
        content = document["paths"][route.path]["get"]["responses"][str(got.status)]["content"]
        kind = got.headers["Content-Type"].partition(";")[0]
        assert kind in content
        if kind == "application/json":
            schema = {**content[kind]["schema"], "components": document["components"]}
            Draft202012Validator(schema).validate(got.data)


def ask_all(document: dict[str, Any], url: str) -> int:
    """Good requests of every route, and bad bodies where it takes one; how many.

    What the text of an address or a key has to be, a schema cannot say: that valid ones are
    admitted is for the tests beside this one, and so are bad parameters.
    """
    import schemathesis  # seconds, which other tests need not wait for
    from schemathesis import GenerationMode
    from schemathesis.checks import not_a_server_error
    from schemathesis.specs.openapi import checks

    always = [
        checks.status_code_conformance,
        checks.content_type_conformance,
        checks.response_headers_conformance,
        checks.response_schema_conformance,
        checks.negative_data_rejection,
    ]
    schema = schemathesis.openapi.from_dict(document)
    count = 0
    for found in schema.get_all_operations():
        operation = found.ok()
        if operation.path == STREAM:
            continue
        for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):
            bad = mode is GenerationMode.NEGATIVE
            if bad and not operation.body:
                continue

            @seed(7)
            @settings(
                max_examples=EXAMPLES,
                deadline=None,
                database=None,
                phases=(Phase.generate,),
                suppress_health_check=list(HealthCheck),
            )
            @given(case=operation.as_strategy(generation_mode=mode))
            def ask(case: Any) -> None:
                nonlocal count
                count += 1
                case.call_and_validate(
                    base_url=url,
                    checks=always
                    if case.path == "/readyz"  # which may say 503 on a slow machine
                    else [not_a_server_error, *always],
                    headers={"Authorization": f"Bearer {TOKEN}"},
                    timeout=20,
                )

            ask()
    return count


@pytest.mark.long
async def test_no_request_gets_an_answer_that_is_not_described(pair: Scene) -> None:
    tx = transfer(pair.node)
    pair.node.mempool.add(tx)
    document = await described(pair)
    asked = await asyncio.to_thread(ask_all, document, pair.api.url)
    assert asked > len(ROUTES)
    assert await pair.get("/v1/status")  # and it lives


@pytest.mark.slow
async def test_no_request_gets_an_answer_that_is_not_described_at_length(tmp_path: Path) -> None:
    """Schemathesis' own campaign, with all of its phases."""
    command = Path(sys.executable).with_name("schemathesis")
    assert command.exists() or shutil.which("schemathesis")
    checks = (
        "not_a_server_error,status_code_conformance,content_type_conformance,"
        "response_headers_conformance,response_schema_conformance,negative_data_rejection,"
        "unsupported_method,missing_required_header,use_after_free,ignored_auth"
    )
    async with scene(peer=True) as made:
        arguments = [
            *(str(command), "run", f"{made.api.url}/v1/openapi.json"),
            *("-H", f"Authorization: Bearer {TOKEN}", "--exclude-path", STREAM),
            *("-n", "100", "--phases", "examples,coverage,fuzzing,stateful", "--seed", "1"),
            *("--checks", checks, "--no-color"),
        ]
        done = await asyncio.to_thread(
            subprocess.run, arguments, cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout[-5000:]
        assert await made.get("/v1/status")
