"""What a node says of itself and its chain is what it has."""

from __future__ import annotations

import asyncio
import itertools
from dataclasses import replace

import msgspec
import pytest
from helpers.forks import ChainMaker
from helpers.http_scene import ACCOUNTS, BLOCKS, CONFIG, TRANSFERS, Scene, scene, transfer
from helpers.sync_nodes import extend, until

from moderntensor.api.views import transaction_view
from moderntensor.blockchain.proofs import AccountProof
from moderntensor.blockchain.tables import BODIES, META, META_EARLIEST, block_key, height_key
from moderntensor.client import model
from moderntensor.network.sync import SyncPhase
from moderntensor.node import FullNode


def address(number: int = 0) -> str:
    return f"0x{ACCOUNTS[number].address.hex()}"


async def test_lists_of_large_transactions_end_where_a_client_could_not_take_them(
    served: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = served.node
    for ahead in range(4):
        node.mempool.add(transfer(node, ahead=ahead, data=bytes(2000), gas_limit=10**6))
    monkeypatch.setattr("moderntensor.api.views.PAGE_BYTES", 5000)
    pool = await served.get("/v1/mempool?limit=500")
    assert [tx["nonce"] - pool["transactions"][-1]["nonce"] for tx in pool["transactions"]] == [
        1,
        0,
    ]
    assert pool["size"]["transactions"] == 4
    monkeypatch.setattr("moderntensor.api.views.PAGE_BYTES", 1)  # one at least
    found, after, path = [], "", f"/v1/accounts/0x{ACCOUNTS[1].address.hex()}/transactions"
    while len(found) < 5:
        page = await served.get(f"{path}?limit=500{after}")
        assert len(page["transactions"]) == 1
        found.append(page["transactions"][0]["hash"])
        after = f"&before={page['next']}"
    assert len(set(found)) == 5


async def test_the_node_and_its_peer(pair: Scene) -> None:
    status = msgspec.convert(await pair.get("/v1/status"), model.NodeStatus)
    head = pair.node.chain.head
    assert (status.head.height, status.head.hash) == (head.height, head.hash.hex())
    assert status.node_id == pair.node.p2p.node_id.hex()
    assert status.genesis_hash == CONFIG.genesis_hash.hex()
    assert (status.places.outbound, status.places.inbound) == (1, 0)
    assert status.has_state and not status.producing
    assert [concern.code for concern in status.warnings] == ["tip_stale"]
    (peer,) = (await pair.get("/v1/peers"))["peers"]
    assert peer["node_id"] == pair.peer.p2p.node_id.hex()
    assert peer["address"] in pair.node.p2p.peers
    sync = msgspec.convert(await pair.get("/v1/sync"), model.SyncState)
    assert (sync.current_height, sync.peers) == (BLOCKS, 1)
    traffic = {of["type"]: of for of in (await pair.get("/v1/traffic"))["types"]}
    assert traffic["HELLO"]["messages_received"] == traffic["HELLO"]["messages_sent"] == 1
    assert await pair.get("/healthz") == {"status": "alive"}
    assert "moderntensor_" in await pair.get("/metrics")


async def test_numbers_that_a_reader_would_round(pair: Scene) -> None:
    (peer,) = pair.node.p2p.table
    peer.best_height = 2**64 - 1  # whatever it claims
    (shown,) = (await pair.get("/v1/peers"))["peers"]
    assert shown["best_height"] == 2**53 - 1
    dear = transfer(pair.node, gas_price=7)
    pair.node.mempool.add(dear)
    assert (await pair.get(f"/v1/transactions/{dear.hash.hex()}"))["gas_price"] == "7"
    dearer = transfer(pair.node, gas_price=2**53 + 1)
    assert transaction_view(dearer).gas_price == "9007199254740993"


async def test_who_asks_for_metrics_together_gets_the_same(
    served: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    scrapes, may_go_on = [0], asyncio.Event()

    async def slow(node: FullNode) -> bytes:
        assert node is served.node
        scrapes[0] += 1
        await may_go_on.wait()
        return b"scrape %d" % scrapes[0]

    monkeypatch.setattr("moderntensor.metrics.scrape", slow)
    asking = [asyncio.ensure_future(served.get("/metrics")) for _ in range(5)]
    await until(lambda: len(served.api._context.scraped._asking) == 5)
    may_go_on.set()
    assert await asyncio.gather(*asking) == ["scrape 1"] * 5
    assert await served.get("/metrics") == "scrape 2"  # nothing is kept


async def test_ready_only_while_it_follows(pair: Scene) -> None:
    await until(lambda: pair.node.sync.status.phase is SyncPhase.FOLLOWING)
    assert await pair.get("/readyz") == {"status": "ready"}
    pair.api.begin_stop()
    assert "stopping" in await pair.refused(503, "/readyz")
    assert await pair.get("/v1/peers")  # the rest goes on


async def test_not_ready_without_peers(served: Scene) -> None:
    assert await served.refused(503, "/readyz") == "there are no peers"


async def test_headers_and_blocks(served: Scene) -> None:
    chain = served.node.chain
    found = (await served.get("/v1/headers?limit=3"))["headers"]
    assert [header["height"] for header in found] == [BLOCKS, BLOCKS - 1, BLOCKS - 2]
    assert {header["transactions"] for header in found} == {TRANSFERS}
    below = (await served.get("/v1/headers?before=2"))["headers"]
    assert [(header["height"], header["transactions"]) for header in below] == [
        (1, TRANSFERS),
        (0, 0),
    ]
    head = chain.get_block(BLOCKS)
    assert head is not None
    for ref in ("head", str(BLOCKS), head.hash.hex(), "0X" + head.hash.hex().upper()):
        block = msgspec.convert(await served.get(f"/v1/blocks/{ref}"), model.Block)
        assert block.header.hash == head.hash.hex()
        assert (await served.get(f"/v1/headers/{ref}"))["hash"] == head.hash.hex()
        assert block.size == len(head.encode())
        assert [tx.hash for tx in block.transactions] == [tx.hash.hex() for tx in head.transactions]
        assert block.transactions[0].sender == f"0x{head.transactions[0].sender.hex()}"


async def test_transactions_wherever_they_are(served: Scene) -> None:
    block = served.node.chain.get_block(3)
    assert block is not None
    tx = block.transactions[1]
    found = await served.get(f"/v1/transactions/{tx.hash.hex()}")
    assert (found["height"], found["position"], found["succeeded"]) == (3, 1, True)
    assert (found["value"], found["nonce"]) == (str(tx.value), tx.nonce)
    waiting = transfer(served.node)
    served.node.mempool.add(waiting)
    found = await served.get(f"/v1/transactions/0x{waiting.hash.hex()}")
    assert (found["height"], found["succeeded"], found["gas_used"]) == (None, None, None)
    pool = await served.get("/v1/mempool")
    assert pool["size"]["transactions"] == 1
    assert [tx["hash"] for tx in pool["transactions"]] == [waiting.hash.hex()]
    assert (await served.get(f"/v1/accounts/{address()}"))["next_nonce"] == waiting.nonce + 1
    assert "neither in a block nor waiting" in await served.refused(
        404, f"/v1/transactions/{'ab' * 32}"
    )


async def test_pages_of_an_account_hold_each_transaction_once(served: Scene) -> None:
    chain = served.node.chain
    wanted = [tx_hash.hex() for tx_hash in chain.transactions_of(ACCOUNTS[0].address, 500)]
    seen: list[str] = []
    path = f"/v1/accounts/{address()}/transactions?limit=2"
    page = await served.get(path)
    while True:
        seen += [tx["hash"] for tx in page["transactions"]]
        if page["next"] is None:
            break
        page = await served.get(f"{path}&before={page['next']}")
    assert seen == wanted
    assert len(seen) > 6
    stranger = await served.get(f"/v1/accounts/0x{'ee' * 20}/transactions")
    assert stranger == {"transactions": [], "next": None}
    assert "before" in await served.refused(404, f"{path}&before={'ab' * 32}")


async def test_a_proof_is_of_one_state_while_the_chain_grows(served: Scene) -> None:
    chain = served.node.chain
    growing = asyncio.create_task(asyncio.to_thread(extend, chain, 60, 1))
    heights = set()
    while not growing.done():
        account = await served.get(f"/v1/accounts/{address()}?proof=true")
        proof = AccountProof.from_json(account["proof"])
        assert proof.verify(proof.header.state_root)
        assert (proof.height, proof.block_hash.hex()) == (account["height"], account["block_hash"])
        assert proof.account is not None
        assert (str(proof.account.balance), proof.account.nonce) == (
            account["balance"],
            account["nonce"],
        )
        heights.add(account["height"])
    await growing
    account = await served.get(f"/v1/accounts/0x{'ee' * 20}?proof=true")
    proof = AccountProof.from_json(account["proof"])
    assert proof.account is None and proof.verify(chain.head.state_root)
    assert (account["balance"], account["height"]) == ("0", BLOCKS + 60)


async def test_a_node_without_its_old_blocks_says_so(served: Scene) -> None:
    chain = served.node.chain
    block = chain.get_block(2)
    assert block is not None
    with chain.store.write() as txn:  # as after a fast sync
        txn.delete(BODIES, block_key(2, block.hash))
        txn.put(META, META_EARLIEST, height_key(3))
    chain.earliest_height = 3
    assert "has blocks from 3 on" in await served.refused(404, "/v1/blocks/2")
    found = await served.get("/v1/headers/2")
    assert found["hash"] == block.hash.hex()
    listed = (await served.get("/v1/headers?before=3&limit=1"))["headers"]
    assert listed[0]["transactions"] is None
    await served.refused(404, f"/v1/transactions/{block.transactions[0].hash.hex()}")
    sender = block.transactions[0].sender.hex()
    page = await served.get(f"/v1/accounts/{sender}/transactions?limit=500")
    assert all(tx["height"] > 2 for tx in page["transactions"])


async def test_a_node_without_a_state_says_so() -> None:
    rootless = replace(CONFIG, alloc={}, state_root=bytes.fromhex("ab" * 32))
    async with scene(config=rootless, blocks=0) as made:
        assert "not here yet" in await made.refused(409, f"/v1/accounts/{address()}")
        assert "not here yet" in await made.refused(409, f"/v1/accounts/{address()}?proof=true")
        raw = transfer(made.node).encode().hex()
        assert "not here yet" in await made.refused(
            409, "/v1/transactions", "POST", json={"raw": raw}
        )
        status = await made.get("/v1/status")
        assert "no_state" in [concern["code"] for concern in status["warnings"]]
        assert "not here yet" in await made.refused(503, "/readyz")


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("/v1/headers?limit=0", "limit: '0' is not a number from 1 to 500"),
        ("/v1/headers?limit=501", "limit"),
        ("/v1/headers?limit=%D9%A3", "limit"),
        ("/v1/headers?limit=3&limit=4", "'limit': given twice"),
        ("/v1/headers?before=-1", "before"),
        ("/v1/headers?after=3", "'after': there is no such parameter here"),
        ("/v1/headers?limit=%zz", "has a % without two hex digits"),
        ("/v1/headers?limit=%ff", "is not UTF-8"),
        ("/v1/blocks/-1", "ref"),
        ("/v1/blocks/abc", "ref"),
        ("/v1/blocks/9007199254740992", "ref"),
        ("/v1/blocks/%00", "ref"),
        ("/v1/transactions/12", "hash: '12' is not 64 hex digits"),
        ("/v1/accounts/0x12", "address: '0x12' is not 40 hex digits"),
        (f"/v1/accounts/0x{'ab' * 20}?proof=yes", "proof: 'yes' is neither"),
    ],
)
async def test_what_is_wrong_is_named(served: Scene, path: str, said: str) -> None:
    assert said in await served.refused(400, path)


async def test_the_page_is_not_sent_twice(served: Scene) -> None:
    for path in ("/", "/page/style.css", "/page/main.js", "/page/favicon.svg"):
        got = await served.ask("GET", path)
        assert got.status == 200
        again = await served.ask("GET", path, headers={"If-None-Match": got.headers["ETag"]})
        assert (again.status, again.data) == (304, "")


async def test_what_is_nowhere(served: Scene) -> None:
    assert "whose head is at 10" in await served.refused(404, "/v1/blocks/99")
    for path in ("/v2", "/v1/", "/v1/blocks/", "/v1/blocks/1/2", "//v1/status", "/v1/status/"):
        await served.refused(404, path)
    got = await served.ask("PUT", "/v1/peers")
    assert (got.status, got.headers["Allow"]) == (405, "GET, HEAD, POST")
    head = await served.ask("HEAD", "/v1/status")
    assert (head.status, head.data) == (200, None)
    assert head.headers["Content-Type"] == "application/json"


async def test_a_chain_that_is_replaced_meanwhile() -> None:
    """Every answer is of one branch or says that there is none: nothing fails."""
    maker = ChainMaker()
    fork = maker.genesis
    branches = []
    for number in range(8):  # each longer than the one before
        branches.append(maker.run(fork, number + 2, gap=number + 1, transfers=2))
    hashes = [block.hash.hex() for branch in branches for block in branch]
    transactions = [tx.hash.hex() for branch in branches for b in branch for tx in b.transactions]
    sender = branches[0][0].transactions[0].sender.hex()
    async with scene(config=maker.config, blocks=0) as made:

        def replace_it() -> None:
            for branch in branches:
                for block in branch:
                    made.node.chain.import_block(block)

        replacing = asyncio.create_task(asyncio.to_thread(replace_it))
        statuses = set()
        number = 0
        while not replacing.done() or number < 20:
            number += 1
            for path in (
                f"/v1/blocks/{hashes[number % len(hashes)]}",
                "/v1/blocks/head",
                f"/v1/blocks/{number % 9}",
                f"/v1/transactions/{transactions[number % len(transactions)]}",
                f"/v1/accounts/{sender}?proof=true",
                f"/v1/accounts/{sender}/transactions",
                "/v1/headers",
            ):
                got = await made.ask("GET", path)
                statuses.add(got.status)
                assert got.status in (200, 404), (path, got)
                if path == "/v1/headers":
                    listed = got.data["headers"]
                    linked = itertools.pairwise(listed)
                    assert all(one["previous_hash"] == other["hash"] for one, other in linked)
        await replacing
        assert statuses == {200, 404}
        assert made.node.chain.counts.reorganisations == 7
        left = await made.refused(404, f"/v1/blocks/{hashes[0]}")
        assert "on another branch" in left
