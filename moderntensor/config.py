"""Every default of a node in one place, each with where its number comes from.

What the chain itself fixes (block time, gas limit, ...) is no setting: it stands in the genesis
file (`moderntensor.blockchain.genesis.ChainConfig`). Hard caps that no user should turn stand in
`moderntensor.network.limits`.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any, Final

from ._version import VERSION
from .errors import ConfigError

_MIB = 1024 * 1024
TRANSPORTS: Final = ("secure", "plaintext")


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeConfig:
    """Settings of one node. Times are seconds, sizes bytes, unless the name says otherwise.

    Raises `ConfigError` naming the field when a value is of the wrong type or out of range.
    """

    # --- who we are ------------------------------------------------------------------------
    network_id: int = 1
    listen: bool = True  # False: dial others only
    listen_port: int = 30303  # go-ethereum's; 0 lets the system choose
    listen_host: str = "0.0.0.0"  # noqa: S104  (a public node; loopback is a choice for tests)
    user_agent: str = f"moderntensor/{VERSION}"
    # "secure" or "plaintext"; nothing falls back from one to the other.
    transport: str = "secure"

    # --- how many peers --------------------------------------------------------------------
    max_peers: int = 50  # go-ethereum's --maxpeers
    # Dialled until this many outbound peers are there: Bitcoin Core's full-relay outbound count.
    target_outbound: int = 8
    # Of max_peers, how many may have dialled us. None: max_peers - target_outbound, at least half
    # of max_peers, so that strangers cannot fill every slot.
    max_inbound: int | None = None

    # --- connecting ------------------------------------------------------------------------
    connect_timeout: float = 10.0  # protocol: TCP connect 10 s
    handshake_timeout: float = 5.0  # protocol: transport handshake and HELLO together 5 s
    discovery: bool = True  # ask peers for peers and dial them; bootstrap nodes are always dialled
    discovery_interval: float = 30.0  # CometBFT's PEX asks every 30 s
    # One attempt per address per interval (go-ethereum: 35 s of dial history; hazards: 30 s).
    redial_interval: float = 30.0
    redial_max: float = 3600.0  # an address that keeps failing is tried hourly
    # Bootstrap nodes are ours, often started in the same breath: tried sooner, given up never.
    bootstrap_redial: float = 1.0
    bootstrap_redial_max: float = 60.0
    # How long the address of a peer that broke the rules is neither dialled nor admitted:
    # ten minutes, long enough to notice and short enough for a fault that was ours.
    refusal_time: float = 600.0

    # --- reputation ------------------------------------------------------------------------
    # The first ban of an address; who does it again is banned longer. As Bitcoin Core lets its
    # operator turn 24 hours with -bantime: shorter, since a ban here needs no operator.
    ban_time: float = 3600.0

    # --- addresses -------------------------------------------------------------------------
    # Addresses of this machine and of private networks are spared the rules that tell strangers
    # apart by their address (netgroups, bans of hosts, one attempt per interval).
    exempt_local: bool = True
    # Our address as others reach us, where the operator knows it ("host", an IP address). None:
    # learned from what peers say.
    external_address: str | None = None

    # --- keeping alive ---------------------------------------------------------------------
    ping_interval: float = 15.0  # go-ethereum p2p pingInterval
    # No PONG for so long: gone. go-ethereum's frameReadTimeout (30 s without any frame) covers one
    # ping interval and such a wait; a line slower than this could not keep up with the chain.
    ping_timeout: float = 20.0
    send_stall_timeout: float = 30.0  # a peer that reads nothing for so long is gone

    # --- requests --------------------------------------------------------------------------
    request_timeout: float = 15.0  # between go-ethereum's rttMinEstimate (2 s) and ttlLimit (60 s)
    max_inflight: int = 16  # protocol: our HELLO's max_inflight
    max_per_type: int = 8  # protocol: our HELLO's max_per_type
    # Reads of the store at a time, for all peers together; no more than there are CPUs.
    serving_concurrency: int = 4

    # --- sync ------------------------------------------------------------------------------
    headers_per_request: int = 192  # protocol and go-ethereum: MaxHeaderFetch
    # Those that a checkpoint covers cost a peer and us little more than the bytes.
    trusted_headers_per_request: int = 2048  # protocol: GET_HEADERS.max_headers
    blocks_per_request: int = 128  # protocol and go-ethereum: MaxBlockFetch
    sync_peers: int = 8  # asked at the same time; more only split the same line
    sync_requests_per_peer: int = 4  # of a kind at a time: half of the max_per_type of a HELLO
    sync_window_blocks: int = 4096  # bodies asked for beyond the next one to apply
    sync_window_bytes: int = 64 * _MIB  # and their memory, downloaded and not yet applied
    apply_batch_blocks: int = 256  # blocks per atomic commit; a commit costs one disk sync
    stall_timeout: float = 2.0  # Bitcoin Core BLOCK_STALLING_TIMEOUT_DEFAULT
    stall_timeout_max: float = 64.0  # Bitcoin Core BLOCK_STALLING_TIMEOUT_MAX
    sync_give_up: float = 120.0  # without any progress; two of the longest stalls
    # A fresh node begins with a state that it fetches, instead of executing all history.
    fast_sync: bool = False
    backfill: bool = False  # then fetches the bodies of all blocks before it, in the background
    follow_interval: float = 5.0  # peers' claims are looked at so often; PONGs move them every 15 s

    # --- mempool ---------------------------------------------------------------------------
    mempool_transactions: int = 5120  # go-ethereum: GlobalSlots 4096 + GlobalQueue 1024
    mempool_bytes: int = 64 * _MIB  # of memory: 5120 transfers take 10 MiB, those with data more
    mempool_lifetime: float = 3 * 3600.0  # go-ethereum: Lifetime

    # --- limits ----------------------------------------------------------------------------
    # All that peers can make a node hold in memory, the mempool and a sync's windows included: a
    # quarter of the smallest machine that a node is run on, 1 GiB.
    byte_budget: int = 256 * _MIB
    # Multiplies what each peer may send (`network/rates.py`). A million lifts these limits in
    # effect, for closed networks and benchmarks.
    rate_limits: float = 1.0

    # --- storage ---------------------------------------------------------------------------
    map_size: int = 64 * 1024 * _MIB  # address space only; LMDB's file grows as it is filled
    # Keep images of the last two states at multiples of the chain's snapshot_interval, 0.1 GB each
    # for a million accounts, and serve them to nodes that begin with one.
    snapshots: bool = True

    def __post_init__(self) -> None:
        for field in fields(self):
            _check(field.name, getattr(self, field.name), str(field.type))
        low: dict[str, float] = {
            "max_peers": 1,
            "target_outbound": 0,
            "serving_concurrency": 1,
            "max_inflight": 1,
            "max_per_type": 1,
            "headers_per_request": 1,
            "trusted_headers_per_request": 1,
            "blocks_per_request": 1,
            "byte_budget": 32 * _MIB,  # the largest reply, an inbox, small windows
            "rate_limits": 0.001,
        }
        high: dict[str, float] = {
            "max_inflight": 255,  # u8 in HELLO
            "max_per_type": 255,
            "network_id": 2**64 - 1,  # u64 in HELLO
            "listen_port": 65535,
            "max_peers": 65535,  # as many ports as an address has
            "headers_per_request": 2048,  # GET_HEADERS.max_headers
            "trusted_headers_per_request": 2048,
            "blocks_per_request": 512,  # GET_BLOCKS.max_blocks
        }
        for name, bound in low.items():
            if getattr(self, name) < bound:
                raise ConfigError(f"{name}: {getattr(self, name)} is below {bound}")
        for name, bound in high.items():
            if getattr(self, name) > bound:
                raise ConfigError(f"{name}: {getattr(self, name)} is above {bound}")
        if self.transport not in TRANSPORTS:
            raise ConfigError(f"transport: {self.transport!r} is none of {', '.join(TRANSPORTS)}")
        if len(self.user_agent) > 255 or not self.user_agent.isascii():
            raise ConfigError("user_agent: at most 255 printable ASCII characters")

    @property
    def inbound_limit(self) -> int:
        """How many peers that dialled us are kept at most."""
        if self.max_inbound is not None:
            return min(self.max_inbound, self.max_peers)
        return self.max_peers - min(self.target_outbound, self.max_peers // 2)

    def replace(self, **changes: Any) -> NodeConfig:
        """A copy with some settings changed."""
        unknown = set(changes) - {field.name for field in fields(self)}
        if unknown:
            raise ConfigError(f"no such setting: {', '.join(sorted(unknown))}")
        return replace(self, **changes)


def _check(name: str, value: object, kind: str) -> None:
    """Types as annotated; every number is positive or zero."""
    if kind == "bool":
        if not isinstance(value, bool):
            raise ConfigError(f"{name}: {value!r} is neither True nor False")
        return
    if kind == "str" or (kind.startswith("str") and value is not None):
        if not isinstance(value, str) or not value.isprintable():
            raise ConfigError(f"{name}: {value!r} is no printable text")
        return
    if value is None and "None" in kind:
        return
    wanted = (int,) if kind.startswith("int") else (int, float)
    if isinstance(value, bool) or not isinstance(value, wanted):
        raise ConfigError(f"{name}: {value!r} is not a number of type {kind}")
    if not 0 <= value < float("inf"):
        raise ConfigError(f"{name}: {value!r} is out of range")
