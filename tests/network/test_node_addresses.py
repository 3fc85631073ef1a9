"""What a whole node does with addresses: remembers them between runs, learns its own."""

from __future__ import annotations

from contextlib import AsyncExitStack
from pathlib import Path

from helpers.rawpeer import QUIET, RawPeer, hello_message, raw_listener, until

from moderntensor.network.addressbook.file import ADDRESS_FILE
from moderntensor.network.addresses import to_wire
from moderntensor.network.limits import ADDRESSES_BURST
from moderntensor.network.messages import (
    DisconnectCode,
    GetPeersMessage,
    HelloMessage,
    PeerRecord,
    PeersMessage,
)
from moderntensor.network.p2p import P2PNode

LOOPBACK = "127.0.0.1"
EAGER = QUIET.replace(discovery=True, discovery_interval=0.2, redial_interval=0.2)


async def test_a_node_finds_its_peers_again_without_a_bootstrap_node(tmp_path: Path) -> None:
    async with P2PNode(config=QUIET) as other:
        bootstrap = [f"{LOOPBACK}:{other.listen_port}"]
        async with P2PNode(bootstrap_nodes=bootstrap, config=EAGER, data_dir=tmp_path) as node:
            await until(lambda: node.peers)
        assert (tmp_path / ADDRESS_FILE).stat().st_mode & 0o777 == 0o600
        await until(lambda: not other.peers)
        (tmp_path / "anchors.json").unlink(missing_ok=True)
        async with P2PNode(config=EAGER, data_dir=tmp_path) as node:
            await until(lambda: other.node_id in node.table.by_id)


async def test_a_damaged_file_does_not_keep_a_node_from_starting(tmp_path: Path) -> None:
    (tmp_path / ADDRESS_FILE).write_bytes(b"\xff" * 1000)
    async with P2PNode(config=QUIET, data_dir=tmp_path) as node:
        assert node.running
    assert (tmp_path / f"{ADDRESS_FILE}.bad").exists()


async def test_what_peers_in_several_networks_see_is_our_address() -> None:
    async with AsyncExitStack() as stack:
        others = [
            await stack.enter_async_context(
                P2PNode(config=QUIET.replace(listen_host=f"127.{number}.0.1"))
            )
            for number in range(1, 4)
        ]
        node = P2PNode(config=QUIET.replace(exempt_local=False))
        await stack.enter_async_context(node)
        for other in others:
            assert node.external_address is None
            await node.connect_peer(other.listen_host, other.listen_port)
        assert node.external_address == LOOPBACK
        # So it is not learned as if it were another node's.
        assert not node.book.learn(LOOPBACK, node.listen_port, b"x" * 32, 0, "127.9.0.1")
        assert node.book.learn(LOOPBACK, node.listen_port % 65535 + 1, b"x" * 32, 0, "127.9.0.1")


async def test_one_liar_does_not_tell_us_who_we_are() -> None:
    async def lie(raw: RawPeer) -> None:
        await raw.read(HelloMessage)
        raw.send(hello_message(observed_ip=to_wire("30.0.0.1"), node_id=b"\x77" * 32))
        assert await raw.read_goodbye() == DisconnectCode.SHUTTING_DOWN

    async with (
        raw_listener(lie) as port,
        P2PNode(config=QUIET.replace(exempt_local=False), node_id=b"\x01" * 32) as node,
    ):
        peer = await node.connect_peer(LOOPBACK, port)
        assert peer.observed_host == "30.0.0.1"
        assert node.external_address is None


async def test_a_flood_of_addresses_fills_no_more_than_its_share() -> None:
    """What one source can place is bounded, however often it is asked; nor is it an offence."""
    node = P2PNode(
        config=QUIET.replace(discovery=True, discovery_interval=0.01, target_outbound=0),
        node_id=b"\x01" * 32,
    )
    told = 0
    async with node, await RawPeer.meet(node) as raw:
        while told < 2000:
            request = await raw.read_any()
            if isinstance(request, GetPeersMessage):
                records = tuple(
                    PeerRecord(
                        node_id=b"x" * 32,
                        ip=to_wire(f"{20 + n % 80}.{n // 80}.1.1"),
                        port=1,
                        last_seen=0,
                    )
                    for n in range(told, told + request.max_peers)
                )
                told += len(records)
                raw.send(PeersMessage(request_id=request.request_id, peers=records))
        assert 500 < len(node.book) <= ADDRESSES_BURST  # some found their place taken
        assert node.peers
