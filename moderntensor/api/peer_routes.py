"""Routes: peers and bans."""

from __future__ import annotations

from ..client import model
from ..errors import ConfigError, NetworkError
from ..network.addresses import parse_address, parse_node_address
from ..network.bans import parse_key
from .context import Context
from .parameters import Parameter
from .problems import Refusal, shown
from .routing import Call, route
from .views import ban_view, peer_view

__all__ = ["ROUTES"]

MAX_NAME = 400  # characters of an address


def _address(text: str) -> str:
    """As `P2PNode.peers` has them. Raises ValueError."""
    if len(text) > MAX_NAME:
        raise ValueError(f"{len(text)} characters, at most {MAX_NAME}")
    try:
        parse_address(text)
    except ConfigError:
        raise ValueError(f"{shown(text)} is not host:port") from None
    return text


def _key(text: str) -> str:
    try:
        return parse_key(text)
    except ConfigError:
        raise ValueError(
            f"{shown(text)} is no IP address, network, host:port or node id of 64 hex digits"
        ) from None


PEER_ADDRESS = Parameter(
    "address",
    "path",
    _address,
    {"type": "string", "minLength": 3, "maxLength": MAX_NAME},
    "`host:port` of a connected peer: of its end of the socket, or where it listens.",
)
BAN_KEY = Parameter(
    "key",
    "path",
    _key,
    {"type": "string", "minLength": 1, "maxLength": 120},
    "As in the list of bans; `/` and `:` percent-encoded.",
)


@route("GET", "/v1/peers", model.PeerList, tag="peers")
async def peers(api: Context, call: Call) -> model.PeerList:
    """The connected peers. Those that have been connected for longest first."""
    table = list(api.node.p2p.table)
    return model.PeerList(peers=[peer_view(api.node, peer) for peer in table])


@route(
    "POST",
    "/v1/peers",
    model.Peer,
    tag="peers",
    status=201,
    body=model.AddPeer,
    problems={422: "Nobody is there, or no node that will have us; the detail says which."},
)
async def add_peer(api: Context, call: Call) -> model.Peer:
    """Connect to a node. Answers once it is a peer; if it is one already, at once."""
    try:
        at = parse_node_address(call.body.address)
    except ConfigError as error:
        raise Refusal(400, f"address: {shown(str(error))}") from error
    if not api.node.p2p.running:
        raise Refusal(503, "the node is not running")
    try:
        peer = await api.node.p2p.connect_peer(at.host, at.port, node_id=at.node_id)
    except (NetworkError, OSError) as error:
        raise Refusal(422, f"address: {shown(str(error) or type(error).__name__)}") from error
    return peer_view(api.node, peer)


@route(
    "DELETE",
    "/v1/peers/{address}",
    None,
    tag="peers",
    status=204,
    parameters=(PEER_ADDRESS,),
    problems={404: "There is no such peer."},
)
async def drop_peer(api: Context, call: Call) -> None:
    """Part from a peer. It may come back; a ban keeps it away."""
    if not await api.node.p2p.disconnect_peer(call["address"]):
        raise Refusal(404, f"no peer at {shown(call['address'])}")


@route("GET", "/v1/bans", model.BanList, tag="peers")
async def bans(api: Context, call: Call) -> model.BanList:
    """The bans in force. The one that ends first in front."""
    return model.BanList(bans=[ban_view(api.node, ban) for ban in api.node.p2p.list_bans()])


@route("POST", "/v1/bans", model.Ban, tag="peers", status=201, body=model.AddBan)
async def add_ban(api: Context, call: Call) -> model.Ban:
    """Ban a host, a network, one node of a host, or a node id. Whoever of them is connected is
    parted from. It lasts over a restart."""
    wanted: model.AddBan = call.body
    try:
        ban = api.node.p2p.ban(wanted.key, wanted.seconds, wanted.reason)
    except ConfigError as error:
        raise Refusal(400, f"this ban is not possible: {shown(str(error))}") from error
    return ban_view(api.node, ban)


@route(
    "DELETE",
    "/v1/bans/{key}",
    None,
    tag="peers",
    status=204,
    parameters=(BAN_KEY,),
    problems={404: "There is no such ban."},
)
async def lift_ban(api: Context, call: Call) -> None:
    """End a ban. What the same address did before is forgotten too."""
    if not api.node.p2p.lift_ban(call["key"]):
        raise Refusal(404, f"{shown(call['key'])} is not banned")


ROUTES = (peers, add_peer, drop_peer, bans, add_ban, lift_ban)
