"""IPv6 beside IPv4, on this machine's own addresses."""

from __future__ import annotations

import socket

import pytest
from helpers.rawpeer import QUIET, until

from moderntensor.errors import NetworkError
from moderntensor.network.p2p import P2PNode


def _has_ipv6() -> bool:
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False


pytestmark = pytest.mark.skipif(not _has_ipv6(), reason="this machine has no IPv6")
SIX = QUIET.replace(listen_host="::1")


async def test_two_nodes_meet_over_ipv6() -> None:
    async with P2PNode(config=SIX) as one, P2PNode(config=SIX) as other:
        peer = await other.connect_peer("::1", one.listen_port)
        assert peer.address == f"[::1]:{one.listen_port}"
        await until(lambda: one.peers)
        assert [p.host_address for p in one.peers.values()] == ["::1"]
        assert peer.observed_host == "::1"
        assert await other.disconnect_peer(peer.address)


async def test_bootstrap_addresses_may_be_of_either_family() -> None:
    async with P2PNode(config=SIX) as six, P2PNode(config=QUIET) as four:
        bootstrap = [
            f"{six.node_id.hex()}@[::1]:{six.listen_port}",
            f"localhost:{four.listen_port}",
        ]
        async with P2PNode(bootstrap_nodes=bootstrap, config=QUIET) as node:
            await until(lambda: {six.node_id, four.node_id} == set(node.table.by_id))


async def test_one_socket_listens_to_both_families() -> None:
    if not socket.has_dualstack_ipv6():
        pytest.skip("this machine has no sockets for both families")
    async with P2PNode(config=QUIET.replace(listen_host="::")) as node:
        for host in ("127.0.0.1", "::1"):
            async with P2PNode(config=QUIET) as other:
                peer = await other.connect_peer(host, node.listen_port)
                await until(lambda: node.peers)
                assert [p.host_address for p in node.peers.values()] == [host]
                assert peer.observed_host == host
            await until(lambda: not node.peers)
        with pytest.raises(NetworkError, match="cannot listen on"):
            async with P2PNode(
                config=QUIET.replace(listen_host="::", listen_port=node.listen_port)
            ):
                pass


async def test_what_is_met_over_ipv6_is_told_of_and_dialled() -> None:
    eager = SIX.replace(discovery=True, discovery_interval=0.2, target_outbound=2)
    async with P2PNode(config=eager) as first:
        bootstrap = [f"[::1]:{first.listen_port}"]
        async with (
            P2PNode(bootstrap_nodes=bootstrap, config=eager) as one,
            P2PNode(bootstrap_nodes=bootstrap, config=eager) as other,
        ):
            await until(lambda: {one.node_id, first.node_id} == set(other.table.by_id))
            entry = first.book.get("::1", one.listen_port)
            assert entry is not None
            assert entry.met
