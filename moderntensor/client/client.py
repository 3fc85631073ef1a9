"""A node's HTTP API as typed calls: one method for each path."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self, TypeVar

import msgspec

from ..errors import BadAnswerError, ConfigError
from ..runtime import Runtime
from .events import EventStream
from .model import (
    Account,
    AddBan,
    AddPeer,
    Ban,
    BanList,
    Block,
    Header,
    HeaderList,
    Mempool,
    NodeStatus,
    Peer,
    PeerList,
    Submitted,
    SubmitTransaction,
    SyncState,
    TrafficList,
    Transaction,
    TransactionList,
)
from .transport import Transport, document, path_of
from .waiting import Waiting

if TYPE_CHECKING:
    from ..blockchain.proofs import AccountProof
    from ..blockchain.state import Account as ChainAccount
    from ..blockchain.transaction import Transaction as SignedTransaction

__all__ = ["DEFAULT_NODE", "Client"]

DEFAULT_NODE: Final = "http://127.0.0.1:8645"
T = TypeVar("T")


class Client:
    """A node that runs somewhere, asked over HTTP. Use it in an ``async with``, or `close` it.

    Connections are kept alive and shared by all calls, which may run at the same time: eight do,
    others wait for them. Hashes, node ids and addresses are given as bytes or as hex, with or
    without 0x. Every call raises `NodeUnreachableError`, `NodeRefusedError` or `BadAnswerError`,
    all of them `ClientError`.
    """

    def __init__(
        self,
        node: str = DEFAULT_NODE,
        *,
        token: str | None = None,
        token_file: str | Path | None = None,
        timeout: float = 10.0,
        tls: ssl.SSLContext | None = None,
        runtime: Runtime | None = None,
    ) -> None:
        """`node` is its URL. What changes the node needs its token: given, or read from
        `token_file` (a node writes ``http.token`` into its data directory) each time, as a node
        that starts again may make a new one. `timeout` in seconds is for one call and its whole
        answer. `tls` replaces the system's ideas of whom to trust with https. `runtime` gives the
        randomness of `events`. ConfigError where something cannot be used."""
        self._transport = Transport(
            node,
            token=token,
            token_file=None if token_file is None else Path(token_file),
            timeout=timeout,
            tls=tls,
        )
        self._random = (runtime or Runtime()).random
        self._streams: list[EventStream] = []
        self._waiting = Waiting(self.events, self._random)

    @property
    def node(self) -> str:
        """Its URL."""
        return self._transport.node

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """End all iterations over events and close the connections. Idempotent."""
        for stream in self._streams:
            stream.close()
        self._streams.clear()
        await self._transport.close()

    # --- the node ------------------------------------------------------------------------------

    async def status(self) -> NodeStatus:
        """The node at a glance."""
        return await self._get(NodeStatus, "status")

    async def sync(self) -> SyncState:
        """What the sync is doing."""
        return await self._get(SyncState, "sync")

    async def traffic(self) -> TrafficList:
        """Messages and bytes by type since the node started."""
        return await self._get(TrafficList, "traffic")

    async def metrics(self) -> str:
        """Its figures as Prometheus reads them."""
        return (await self._transport.ask("GET", "/metrics")).body.decode("utf-8", "replace")

    async def alive(self) -> bool:
        """Whether it says that it is alive."""
        return (await self._transport.ask("GET", "/healthz", accept_status=(503,))).status == 200

    async def ready(self) -> bool:
        """Whether it follows the chain, so that its answers are of the present."""
        return (await self._transport.ask("GET", "/readyz", accept_status=(503,))).status == 200

    def events(self) -> EventStream:
        """New heads, reorganisations, peers and sync progress, as they come, for as long as one
        cares to listen; see `EventStream`."""
        self._streams = [stream for stream in self._streams if not stream.closed]
        stream = EventStream(self._transport, self._random)
        self._streams.append(stream)
        return stream

    # --- peers ---------------------------------------------------------------------------------

    async def peers(self) -> list[Peer]:
        """Those that are connected."""
        return (await self._get(PeerList, "peers")).peers

    async def add_peer(self, address: str) -> Peer:
        """Connect to ``[id@]host:port``; the peer, once it is connected. Needs the token."""
        return await self._post(Peer, "peers", AddPeer(address=address))

    async def drop_peer(self, address: str) -> None:
        """Part from the peer that `peers` lists under this address. Needs the token."""
        await self._transport.ask("DELETE", path_of("peers", address))

    async def bans(self) -> list[Ban]:
        """Who is neither dialled nor admitted."""
        return (await self._get(BanList, "bans")).bans

    async def ban(self, key: str, seconds: float, reason: str | None = None) -> Ban:
        """Ban an IP address, a network, ``host:port`` or a node id. Needs the token."""
        asked = AddBan(key=key, seconds=seconds)
        if reason is not None:
            asked = msgspec.structs.replace(asked, reason=reason)
        return await self._post(Ban, "bans", asked)

    async def unban(self, key: str) -> None:
        """End the ban that `bans` lists under this key. Needs the token."""
        await self._transport.ask("DELETE", path_of("bans", key))

    # --- the chain -----------------------------------------------------------------------------

    async def headers(self, before: int | None = None, limit: int | None = None) -> list[Header]:
        """The highest headers first: those below height `before`, or from the head on."""
        return (await self._get(HeaderList, "headers", before=before, limit=limit)).headers

    async def header(self, ref: int | bytes | str = "head") -> Header:
        """The header at a height, of a hash, or of the head."""
        return await self._get(Header, "headers", _ref(ref))

    async def block(self, ref: int | bytes | str = "head") -> Block:
        """The block at a height, of a hash, or the head."""
        return await self._get(Block, "blocks", _ref(ref))

    async def transaction(self, tx_hash: bytes | str) -> Transaction:
        """A transaction of a block, or one that waits for one."""
        return await self._get(Transaction, "transactions", hex_of("hash", tx_hash, 32))

    async def mempool(self, limit: int | None = None) -> Mempool:
        """What waits to get into blocks."""
        return await self._get(Mempool, "mempool", limit=limit)

    async def submit(self, transaction: SignedTransaction | bytes) -> Submitted:
        """Hand in a signed transaction, or its encoding. Needs the token."""
        raw = transaction if isinstance(transaction, bytes) else transaction.encode()
        return await self._post(Submitted, "transactions", SubmitTransaction(raw=raw.hex()))

    async def wait_for_transaction(self, tx_hash: bytes | str) -> Transaction:
        """The transaction, once it is in a block. Waits as long as it takes, over restarts of the
        node too: put ``asyncio.timeout`` around it. NodeRefusedError (404) if the node no longer
        knows it, neither in a block nor waiting. All who wait share one stream of events."""

        async def look() -> Transaction | None:
            found = await self.transaction(tx_hash)
            return None if found.height is None else found

        return await self._waiting.until(look)

    # --- accounts ------------------------------------------------------------------------------

    async def account(self, address: bytes | str, *, proof: bool = False) -> Account:
        """What the node says an account holds, with a proof that nobody has checked if wanted;
        `prove_account` believes it nothing."""
        asked = "true" if proof else None
        return await self._get(Account, "accounts", _address(address), proof=asked)

    async def account_transactions(
        self, address: bytes | str, limit: int | None = None, before: str | None = None
    ) -> TransactionList:
        """Transactions from and to an account, the newest first; `before` is `next` of the list
        before."""
        return await self._get(
            TransactionList,
            "accounts",
            _address(address),
            "transactions",
            limit=limit,
            before=before,
        )

    async def account_proof(
        self,
        address: bytes | str,
        *,
        trusted_root: bytes | str | None = None,
        trusted_block: bytes | str | None = None,
    ) -> AccountProof:
        """The proof of an account at the node's head, which has been checked here: it is about
        this account and leads to its state root. Without a trusted root or block it remains for
        the caller to find out whether its block is one of the chain. ProofError otherwise."""
        from .proofs import checked_proof  # noqa: PLC0415 - who proves nothing loads no engines

        wanted = _address(address)
        answer = await self.account(wanted, proof=True)
        return checked_proof(
            self.node,
            f"GET {path_of('accounts', wanted)}",
            bytes.fromhex(wanted),
            answer.proof,
            trusted_root=_optional_hash("trusted_root", trusted_root),
            trusted_block=_optional_hash("trusted_block", trusted_block),
        )

    async def prove_account(
        self,
        address: bytes | str,
        *,
        trusted_root: bytes | str | None = None,
        trusted_block: bytes | str | None = None,
    ) -> ChainAccount | None:
        """The account at the node's head, or None where it has none, proved: nothing of it is
        believed. ProofError if the head is not the trusted block (32 bytes, known from elsewhere)
        or its state not under the trusted root, or if the proof does not hold."""
        if trusted_root is None and trusted_block is None:
            raise ConfigError("prove_account: needs a state root or block hash that is trusted")
        proof = await self.account_proof(
            address, trusted_root=trusted_root, trusted_block=trusted_block
        )
        return proof.account

    # --- how -----------------------------------------------------------------------------------

    async def _get(self, kind: type[T], *parts: str, **query: str | int | None) -> T:
        path = path_of(*parts)
        given = {name: str(value) for name, value in query.items() if value is not None}
        answer = await self._transport.ask("GET", path, given)
        return self._decode(kind, f"GET {path}", answer.body)

    async def _post(self, kind: type[T], what: str, body: msgspec.Struct) -> T:
        path = path_of(what)
        answer = await self._transport.ask("POST", path, body=msgspec.json.encode(body))
        return self._decode(kind, f"POST {path}", answer.body)

    def _decode(self, kind: type[T], said: str, body: bytes) -> T:
        try:
            return document(body, msgspec.json.Decoder(kind))
        except ValueError as error:
            raise BadAnswerError(self.node, said, f"no {kind.__name__}: {error}") from error


def hex_of(name: str, value: bytes | str, length: int) -> str:
    """`length` bytes as lowercase hex; ConfigError if they are not that."""
    digits = value.hex() if isinstance(value, bytes) else value.removeprefix("0x").lower()
    if len(digits) != 2 * length or not all(c in "0123456789abcdef" for c in digits):
        raise ConfigError(f"{name}: {str(value)[:80]!r} is not {2 * length} hex digits")
    return digits


def _address(value: bytes | str) -> str:
    return hex_of("address", value, 20)


def _optional_hash(name: str, value: bytes | str | None) -> bytes | None:
    return None if value is None else bytes.fromhex(hex_of(name, value, 32))


def _ref(ref: int | bytes | str) -> str:
    if isinstance(ref, int):
        if ref < 0:
            raise ConfigError(f"block: height {ref} is below 0")
        return str(ref)
    if ref == "head" or (
        isinstance(ref, str) and ref.isascii() and ref.isdecimal() and len(ref) < 20
    ):
        return str(ref)
    return hex_of("block", ref, 32)
