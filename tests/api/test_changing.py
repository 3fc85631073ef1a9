"""What an operator changes over HTTP, and who may not."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.http_scene import TOKEN, Scene, scene, transfer
from helpers.no_room import no_room
from helpers.sync_nodes import until

from moderntensor.api import load_token
from moderntensor.api.access import Access
from moderntensor.errors import ConfigError
from moderntensor.runtime import Runtime

CHANGES = (
    ("POST", "/v1/peers"),
    ("DELETE", "/v1/peers/127.0.0.1:1"),
    ("POST", "/v1/bans"),
    ("DELETE", "/v1/bans/127.0.0.1"),
    ("POST", "/v1/transactions"),
)


@pytest.mark.parametrize(("method", "path"), CHANGES)
async def test_nothing_changes_without_the_token(served: Scene, method: str, path: str) -> None:
    for headers in (
        {},
        {"Authorization": "Bearer"},
        {"Authorization": f"Basic {TOKEN}"},
        {"Authorization": f"Bearer {TOKEN[:-1]}"},
        {"Authorization": f"Bearer {TOKEN}t"},
        {"Authorization": "Bearer " + "ü" * 32},
    ):
        got = await served.ask(method, path, token=None, headers=headers, json={})
        assert got.status == 401, headers
        assert got.headers["WWW-Authenticate"].startswith("Bearer")
    found = await served.ask(method, path, headers={"authorization": f"bearer  {TOKEN}"}, json={})
    assert found.status != 401


async def test_a_server_without_a_token_only_tells() -> None:
    async with scene(token=None, blocks=0) as made:
        detail = await made.refused(403, "/v1/bans", "POST", json={"key": "10.0.0.1", "seconds": 1})
        assert "without a token" in detail


async def test_peers_come_and_go(pair: Scene) -> None:
    (at,) = pair.node.p2p.peers
    assert (await pair.ask("DELETE", f"/v1/peers/{at.replace(':', '%3A')}")).status == 204
    await until(lambda: not pair.node.p2p.peers)
    assert "no peer at" in await pair.refused(404, f"/v1/peers/{at}", "DELETE")
    assert "not host:port" in await pair.refused(400, "/v1/peers/nobody", "DELETE")
    wanted = f"{pair.peer.p2p.node_id.hex()}@127.0.0.1:{pair.peer.p2p.listen_port}"
    for _ in range(2):  # a peer already, the second time
        got = await pair.ask("POST", "/v1/peers", json={"address": wanted})
        assert (got.status, got.data["node_id"]) == (201, pair.peer.p2p.node_id.hex())
    assert "refused" in await pair.refused(
        422, "/v1/peers", "POST", json={"address": "127.0.0.1:1"}
    )
    assert "needs host:port" in await pair.refused(
        400, "/v1/peers", "POST", json={"address": "nobody"}
    )


async def test_bans_of_every_kind(pair: Scene) -> None:
    node_id = pair.peer.p2p.node_id.hex()
    keys = ("10.1.2.3", "10.0.0.0/8", "2001:db8::/32", "10.0.0.1:30303", node_id)
    for key in keys:
        got = await pair.ask(
            "POST", "/v1/bans", json={"key": key, "seconds": 60, "reason": "a test"}
        )
        assert got.status == 201
        assert (got.data["key"], got.data["reason"]) == (key, "a test")
        assert 55 < got.data["seconds_left"] <= 60
    await until(lambda: not pair.node.p2p.peers)
    listed = (await pair.get("/v1/bans"))["bans"]
    assert {ban["key"] for ban in listed} == set(keys)
    for key in keys:
        path = "/v1/bans/" + key.replace("/", "%2F").replace(":", "%3a")
        assert (await pair.ask("DELETE", path)).status == 204
        assert "is not banned" in await pair.refused(404, path, "DELETE")
    assert (await pair.get("/v1/bans")) == {"bans": []}


async def test_a_transaction_reaches_the_peer(pair: Scene) -> None:
    tx = transfer(pair.node)
    for text in (tx.encode().hex(), "0X" + tx.encode().hex().upper()):
        got = await pair.ask("POST", "/v1/transactions", json={"raw": text})
        assert (got.status, got.data["hash"]) == (201, tx.hash.hex())
    await until(lambda: tx.hash in pair.peer.mempool)
    assert "replacement" in await pair.refused(
        422,
        "/v1/transactions",
        "POST",
        json={"raw": transfer(pair.node, data=b"other").encode().hex()},
    )
    largest = transfer(pair.node, 2, data=bytes(131_068 - 138), gas_limit=10**6)
    assert len(largest.encode()) == 131_068
    got = await pair.ask("POST", "/v1/transactions", json={"raw": "0x" + largest.encode().hex()})
    assert got.status == 201, got.data


@pytest.mark.parametrize(
    ("path", "body", "said"),
    [
        ("/v1/transactions", b"", "no JSON"),
        ("/v1/transactions", b"{", "no JSON"),
        ("/v1/transactions", b"\xff\xfe", "no JSON"),
        ("/v1/transactions", b"[" * 100_000, "the body"),
        ("/v1/transactions", b"[]", "Expected `object`, got `array`"),
        ("/v1/transactions", b"{}", "missing required field `raw`"),
        ("/v1/transactions", b'{"raw": 5}', "$.raw"),
        ("/v1/transactions", b'{"raw": "0x0"}', "$.raw"),
        ("/v1/transactions", b'{"raw": "0x00"}', "raw: no transaction"),
        ("/v1/transactions", b'{"raw": "00", "fee": 5}', "unknown field `fee`"),
        ("/v1/peers", b'{"address": ""}', "$.address"),
        ("/v1/peers", b'{"address": "\\ud800:1"}', "the body"),
        ("/v1/bans", b'{"key": "10.0.0.1"}', "missing required field `seconds`"),
        ("/v1/bans", b'{"key": "10.0.0.1", "seconds": 0}', "$.seconds"),
        ("/v1/bans", b'{"key": "10.0.0.1", "seconds": 1e999}', "$.seconds"),
        ("/v1/bans", b'{"key": "nobody", "seconds": 5}', "needs an IP address"),
        ("/v1/bans", b'{"key": "10.0.0.1", "seconds": 5, "reason": "\\n"}', "$.reason"),
    ],
)
async def test_what_is_wrong_with_a_body_is_named(
    served: Scene, path: str, body: bytes, said: str
) -> None:
    sent = {"Content-Type": "application/json"}
    assert said in await served.refused(400, path, "POST", data=body, headers=sent)


async def test_bodies_that_are_not_looked_at(served: Scene) -> None:
    json = {"Content-Type": "application/json"}
    path = "/v1/transactions"
    assert "over 270336 bytes" in await served.refused(
        413, path, "POST", data=b"x" * 300_000, headers=json
    )
    assert "Content-Type" in await served.refused(
        415, path, "POST", data=b"{}", headers={"Content-Type": "text/plain"}
    )
    assert "Content-Encoding" in await served.refused(
        415, path, "POST", data=b"{}", headers={**json, "Content-Encoding": "gzip"}
    )
    assert "takes no body" in await served.refused(400, "/v1/status", data=b"{}", headers=json)


def test_the_token_file_is_made_once_and_for_its_owner(tmp_path: Path) -> None:
    path = tmp_path / "http.token"
    token = load_token(path, Runtime())
    assert len(bytes.fromhex(token)) == 32
    assert path.stat().st_mode & 0o777 == 0o600
    assert load_token(path, Runtime()) == token


@pytest.mark.parametrize("content", ["", "short", "with a blank in the middle", "x" * 300])
def test_token_files_that_will_not_do(tmp_path: Path, content: str) -> None:
    path = tmp_path / "http.token"
    path.write_text(content)
    path.chmod(0o600)
    with pytest.raises(ConfigError, match=r"http\.token"):
        load_token(path, Runtime())


def test_a_token_for_which_there_is_no_room_leaves_no_file(tmp_path: Path) -> None:
    path = tmp_path / "http.token"
    with no_room(), pytest.raises(ConfigError, match=r"http\.token: File too large"):
        load_token(path, Runtime())
    assert not path.exists()


def test_of_what_has_no_end_no_more_is_read_than_a_token_has() -> None:
    with pytest.raises(ConfigError, match="needs one line"):
        load_token(Path("/dev/zero"), Runtime())


def test_a_token_is_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[tuple[bytes, bytes]] = []

    def compare(one: bytes, other: bytes) -> bool:
        compared.append((one, other))
        return one == other

    monkeypatch.setattr("moderntensor.api.access.hmac.compare_digest", compare)
    Access(TOKEN, "127.0.0.1").check_token(f"Bearer {TOKEN}")
    assert compared == [(TOKEN.encode(), TOKEN.encode())]
