"""The client against a real node's API on loopback."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from helpers.http_scene import (
    ACCOUNTS,
    BLOCKS,
    CONFIG,
    TOKEN,
    TRANSFERS,
    VALIDATORS,
    Scene,
    scene,
    transfer,
)
from helpers.sync_nodes import extend

from moderntensor.blockchain.crypto import KeyPair
from moderntensor.blockchain.producer import BlockProducer
from moderntensor.client import Client
from moderntensor.client.model import HeadEvent, PeerEvent
from moderntensor.errors import (
    ConfigError,
    NodeRefusedError,
    ProofError,
)


@pytest.fixture
async def served() -> AsyncIterator[Scene]:
    async with scene() as made:
        yield made


@pytest.fixture
async def client(served: Scene) -> AsyncIterator[Client]:
    async with Client(served.api.url, token=TOKEN) as made:
        yield made


async def test_what_it_says_is_what_the_node_knows(served: Scene, client: Client) -> None:
    node, chain = served.node, served.node.chain
    status, sync, peers, bans, traffic = await asyncio.gather(
        client.status(), client.sync(), client.peers(), client.bans(), client.traffic()
    )
    assert (status.node_id, status.genesis_hash) == (
        node.p2p.node_id.hex(),
        chain.genesis_hash.hex(),
    )
    assert (status.head.height, status.head.hash) == (BLOCKS, chain.head.hash.hex())
    assert sync.current_height == BLOCKS
    assert peers == bans == []
    assert traffic.types
    assert [h.height for h in await client.headers(limit=3)] == [10, 9, 8]
    assert [h.height for h in await client.headers(before=3)] == [2, 1, 0]
    block = await client.block()
    assert block.header.hash == chain.head.hash.hex() and len(block.transactions) == TRANSFERS
    assert await client.block(BLOCKS) == await client.block(chain.head.hash) == block
    assert (await client.header("0x" + chain.head.hash.hex().upper())).height == BLOCKS
    found = await client.transaction(block.transactions[0].hash)
    assert found.height == BLOCKS and found.succeeded
    account = await client.account(ACCOUNTS[0].address)
    assert int(account.balance) == chain.get_account(ACCOUNTS[0].address).balance
    assert await client.account("0x" + ACCOUNTS[0].address.hex()) == account
    first = await client.account_transactions(ACCOUNTS[0].address, limit=2)
    assert len(first.transactions) == 2 and first.next
    second = await client.account_transactions(ACCOUNTS[0].address, before=first.next)
    assert not {tx.hash for tx in first.transactions} & {tx.hash for tx in second.transactions}
    assert await client.alive()
    assert not await client.ready()  # it has neither peers nor a key


async def test_it_changes_peers_and_bans() -> None:
    async with scene(peer=True) as pair, Client(pair.api.url, token=TOKEN) as client:
        (peer,) = await client.peers()
        assert peer.node_id == pair.peer.p2p.node_id.hex()
        await client.drop_peer(peer.address)
        again = await client.add_peer(f"{peer.node_id}@127.0.0.1:{pair.peer.p2p.listen_port}")
        assert again.node_id == peer.node_id
        assert (await client.ban("10.0.0.0/8", 60, "noisy")).reason == "noisy"
        assert (await client.ban("[2001:db8::1]:30303", 60)).key == "[2001:db8::1]:30303"
        assert {ban.key for ban in await client.bans()} == {"10.0.0.0/8", "[2001:db8::1]:30303"}
        for key in ("10.0.0.0/8", "[2001:db8::1]:30303"):
            await client.unban(key)
        assert await client.bans() == []
        with pytest.raises(NodeRefusedError, match=r"DELETE /v1/bans/8\.8\.8\.8: 404"):
            await client.unban("8.8.8.8")


async def test_a_transaction_is_waited_for(served: Scene, client: Client) -> None:
    signed = transfer(served.node)
    submitted = await client.submit(signed)
    assert submitted.hash == signed.hash.hex()
    assert [tx.hash for tx in (await client.mempool()).transactions] == [submitted.hash]
    assert (await client.transaction(signed.hash)).height is None

    async def produce() -> None:
        node = served.node
        slot = CONFIG.slot_of(node.chain.head.timestamp) + 1
        key = VALIDATORS[slot % len(VALIDATORS)]
        producer = BlockProducer(node.chain, node.mempool, key, node.runtime)
        begins = CONFIG.timestamp + slot * CONFIG.block_time
        await node.runtime.run_writer(producer.produce, begins)

    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(client.wait_for_transaction(signed.hash))
        async with client.events() as events:
            await events.connect()
            assert not waiting.done()
            await produce()
    assert waiting.result().height == BLOCKS + 1
    assert (await client.wait_for_transaction(signed.hash)).height == BLOCKS + 1
    with pytest.raises(NodeRefusedError, match="404"):
        await client.wait_for_transaction(bytes(32))


async def test_a_refused_transaction_says_which_rule(client: Client, served: Scene) -> None:
    with pytest.raises(NodeRefusedError, match="POST /v1/transactions: 422") as caught:
        await client.submit(transfer(served.node, ahead=10**6))
    assert caught.value.status == 422 and caught.value.node == served.api.url


async def test_without_the_right_token_nothing_is_changed(served: Scene, tmp_path: Path) -> None:
    file = tmp_path / "http.token"
    for given in ({}, {"token": "wrong" * 5}, {"token_file": file}):
        file.write_text("no longer the token\n".replace(" ", "-"))
        async with Client(served.api.url, **given) as client:  # type: ignore[arg-type]
            with pytest.raises(NodeRefusedError, match="401"):
                await client.ban("8.8.8.8", 60)
    async with Client(served.api.url, token_file=file) as client:
        file.write_text(TOKEN + "\n")  # a node that started again
        await client.ban("8.8.8.8", 60)
        file.unlink()
        with pytest.raises(ConfigError, match=r"token file .*http\.token: No such file"):
            await client.unban("8.8.8.8")
        assert await client.bans()


async def test_connections_are_kept(served: Scene, client: Client) -> None:
    for _ in range(20):
        await client.status()
    connector = client._transport._connections().connector
    assert connector is not None and len(connector._conns) == 1
    assert sum(map(len, connector._conns.values())) == 1


# --- proofs --------------------------------------------------------------------------------


async def test_an_account_is_proved_under_what_is_trusted(served: Scene, client: Client) -> None:
    head, address = served.node.chain.head, ACCOUNTS[0].address
    there = served.node.chain.get_account(address)
    assert await client.prove_account(address, trusted_root=head.state_root) == there
    assert await client.prove_account(address, trusted_block=head.hash.hex()) == there
    nobody = KeyPair.from_secret(b"\7" * 32).address
    assert await client.prove_account(nobody, trusted_block=head.hash) is None
    proof = await client.account_proof(address)
    assert (proof.account, proof.height, proof.block_hash) == (there, BLOCKS, head.hash)
    with pytest.raises(ConfigError, match="that is trusted"):
        await client.prove_account(address)
    with pytest.raises(ProofError, match="not the one trusted"):
        await client.prove_account(address, trusted_block=bytes(32))
    with pytest.raises(ProofError, match="not the one trusted"):
        await client.prove_account(address, trusted_root=bytes(32))


# --- events --------------------------------------------------------------------------------


async def test_events_tell_of_heads_and_peers() -> None:
    async with scene(peer=True) as pair, Client(pair.api.url, token=TOKEN) as client:
        async with client.events() as events:
            await events.connect()
            assert events.connected
            await pair.node.runtime.run_writer(extend, pair.node.chain, 1)
            async for event in events:
                if isinstance(event, HeadEvent):
                    break
            assert event.header.height == BLOCKS + 1
            (peer,) = await client.peers()
            await client.drop_peer(peer.address)
            async for event in events:
                if isinstance(event, PeerEvent) and not event.connected:
                    break
            assert event.node_id == peer.node_id
        assert not events.connected
        assert [each async for each in events] == []


# --- what cannot be used -------------------------------------------------------------------


@pytest.mark.parametrize(
    "node",
    ["", "127.0.0.1:8645", "ftp://host", "http://", "http://host:0", "http://host:99999",
     "http://user:secret@host", "http://host/?a=b", "http://[::1",
     "http://two..dots", f"http://{'long' * 16}", "http://\udcff"],
)  # fmt: skip
async def test_what_names_no_node(node: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Client(node)
    assert "secret" not in str(caught.value)


async def test_what_cannot_be_asked(served: Scene, client: Client) -> None:
    with pytest.raises(ConfigError, match="hash: 'zz' is not 64 hex digits"):
        await client.transaction("zz")
    with pytest.raises(ConfigError, match="address"):
        await client.account(bytes(19))
    with pytest.raises(ConfigError, match="below 0"):
        await client.block(-1)
    with pytest.raises(ConfigError, match="printable ASCII"):
        Client(token="two\nlines")  # noqa: S106
    with pytest.raises(ConfigError, match="not both"):
        Client(token="a", token_file="b")  # noqa: S106
    with pytest.raises(ConfigError, match="timeout"):
        Client(timeout=0)
    with pytest.raises(NodeRefusedError, match="limit"):
        await client.headers(limit=10**9)
    await client.close()
    with pytest.raises(Exception, match="closed"):
        await client.status()
