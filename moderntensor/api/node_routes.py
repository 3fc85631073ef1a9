"""Routes: what the node is and does."""

from __future__ import annotations

import asyncio

from aiohttp import web

from .. import backend
from .._version import VERSION
from ..client import model
from ..network.addresses import format_address
from ..network.budget import Kind, caps_of
from ..node import FullNode
from .concerns import concerns
from .connections import Connection
from .context import Context
from .limits import COMMENT_INTERVAL, LISTENER_STALL
from .parameters import AFTER_EVENT
from .problems import SECURITY_HEADERS
from .routing import Call, Content, route
from .views import sync_view, traffic_view

__all__ = ["ROUTES", "mempool_size"]


def mempool_size(node: FullNode) -> model.MempoolSize:
    """What waits, in numbers."""
    return model.MempoolSize(
        transactions=len(node.mempool),
        bytes=node.mempool.size,
        max_bytes=caps_of(node.settings)[Kind.MEMPOOL],
    )


@route("GET", "/v1/status", model.NodeStatus, tag="node")
async def status(api: Context, call: Call) -> model.NodeStatus:
    """The node at a glance. Who it is, where its chain ends, how its places are taken, and what its
    operator should know."""
    node = api.node
    has_state, database, free = await api.measured.get()
    p2p, chain = node.p2p, node.chain
    info, head = p2p.info, chain.head
    age = max(0.0, node.runtime.wall_time() - head.timestamp)
    uptime = node.runtime.loop_time() - api.started
    listening = node.settings.listen and p2p.running
    return model.NodeStatus(
        version=VERSION,
        engines="pure" if backend.NAME == "pure" else "compiled",
        node_id=p2p.node_id.hex(),
        network_id=p2p.config.network_id,
        chain_id=chain.config.chain_id,
        genesis_hash=chain.genesis_hash.hex(),
        listen_address=format_address(p2p.listen_host, p2p.listen_port) if listening else None,
        external_address=p2p.external_address,
        capabilities=list(p2p.make_hello(0, "0.0.0.0", 0).capabilities),  # noqa: S104 - nobody's
        started_at=api.started_at,
        uptime=uptime,
        phase=node.sync.status.phase.value,
        head=model.Head(
            height=head.height, hash=head.hash.hex(), timestamp=head.timestamp, age=age
        ),
        block_time=chain.config.block_time,
        earliest_height=chain.earliest_height,
        has_state=has_state,
        producing=node.producer is not None,
        places=model.Places(
            inbound=info.inbound,
            inbound_limit=info.inbound_limit,
            outbound=info.outbound,
            target_outbound=info.target_outbound,
            max_peers=info.max_peers,
            pending=info.pending,
            known_addresses=info.known_addresses,
        ),
        mempool=mempool_size(node),
        database_bytes=database,
        disk_free_bytes=free,
        clock_offset=p2p.clock_offset.seconds,
        warnings=concerns(node, uptime=uptime, age=age, has_state=has_state, disk_free=free),
    )


@route("GET", "/v1/sync", model.SyncState, tag="node")
async def sync(api: Context, call: Call) -> model.SyncState:
    """What the sync is doing. How far it is, how fast, and how long it will take."""
    return sync_view(api.node)


@route("GET", "/v1/traffic", model.TrafficList, tag="node")
async def traffic(api: Context, call: Call) -> model.TrafficList:
    """Messages and bytes by type. Since the node was started; bytes as before encryption."""
    return traffic_view(api.node)


@route(
    "GET",
    "/v1/events",
    Content("text/event-stream"),
    tag="node",
    parameters=(AFTER_EVENT,),
    problems={503: "As many listen already as may."},
)
async def events(api: Context, call: Call) -> web.StreamResponse:
    """Events as they happen (server-sent events). The event's name is its kind: `head`,
    `reorganisation`, `peer`, `sync`, or `missed` where some were left out; its data the JSON of
    that event. Heads that follow each other faster than five a second are told by the last of
    them. With the `Last-Event-ID` of the last one seen, or `after`, it goes on after that, as far
    as events are kept; with one from before a restart it begins with `missed`. A comment comes
    every 15 seconds if nothing else does."""
    request = call.raw
    listener = api.events.listen(request.headers.get("Last-Event-ID") or call["after"], call.client)
    headers = {**SECURITY_HEADERS, "Cache-Control": "no-store", "Content-Type": "text/event-stream"}
    response = web.StreamResponse(headers=headers)
    response.force_close()  # a stream that ends is over
    try:
        async with asyncio.timeout(LISTENER_STALL):
            await response.prepare(request)
            if request.method == "HEAD":
                return response
            await response.write(api.events.beginning(listener.position))
        while not listener.over:
            data = listener.take()
            if not data:
                data = b":\n\n"
                try:
                    async with asyncio.timeout(COMMENT_INTERVAL):
                        await listener.wake.wait()
                    continue
                except TimeoutError:
                    pass
            async with asyncio.timeout(LISTENER_STALL):
                await response.write(data)
    except TimeoutError:
        if isinstance(request.protocol, Connection):
            request.protocol.abort()
    except ConnectionError:
        pass  # it has gone: nobody is left to tell
    finally:
        listener.leave()
    return response


ROUTES = (status, sync, traffic, events)
