"""``moderntensor node``: one node, until it is told to stop."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Callable
from contextlib import AsyncExitStack
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..blockchain.genesis import ChainConfig
from ..blockchain.key_files import load_key
from ..config import NodeConfig
from ..errors import ConfigError
from ..network.addresses import NodeAddress, parse_address, parse_node_address
from ..network.sync import SyncPhase, SyncStatus
from ..node import FullNode
from .facts import node_facts
from .output import AsJson, bad_option, console, count, directory, duration, emit, short, size

if TYPE_CHECKING:
    from ..api import ApiServer  # needs an extra

STATUS_INTERVAL = 10.0  # seconds between two status lines
STATE_INTERVAL = 2.0  # while a state is fetched, which is a matter of seconds


class Transport(StrEnum):
    """How the node talks to others."""

    SECURE = "secure"
    PLAINTEXT = "plaintext"


class Loop(StrEnum):
    """What runs the node's coroutines."""

    ASYNCIO = "asyncio"
    UVLOOP = "uvloop"


def node(
    data: Annotated[
        Path,
        typer.Option(
            metavar="DIR", parser=directory, help="Directory of the chain; made if it is missing."
        ),
    ],
    genesis: Annotated[Path, typer.Option(help="Genesis file (JSON) of the chain to join.")],
    listen: Annotated[
        str, typer.Option(metavar="HOST:PORT", help="Where to accept peers; port 0 takes any.")
    ] = "0.0.0.0:30303",
    peer: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ID@HOST:PORT",
            help="A node to start from; may be given many times. With an id and @ in front of the"
            " address, only the node of that id will do.",
        ),
    ] = None,
    network_id: Annotated[
        int, typer.Option(min=0, help="Nodes of other networks are refused.")
    ] = 1,
    max_peers: Annotated[int, typer.Option(min=1, help="Connections at most.")] = 50,
    transport: Annotated[
        Transport,
        typer.Option(help="plaintext, for closed networks, talks only to nodes that speak it too."),
    ] = Transport.SECURE,
    validator_key: Annotated[
        Path | None, typer.Option(help="Key file: produce blocks in the slots of this key.")
    ] = None,
    fast: Annotated[
        bool,
        typer.Option(
            "--fast",
            help="Begin a new chain with a recent state, fetched from peers and proved by the"
            " headers, instead of executing all blocks.",
        ),
    ] = False,
    backfill: Annotated[
        bool,
        typer.Option(
            "--backfill", help="Then fetch the blocks before that state too, in the background."
        ),
    ] = False,
    trusted_head: Annotated[
        str | None,
        typer.Option(
            metavar="HEIGHT:HASH",
            help="A block that you know to be good: no other chain is followed, and signatures up"
            " to there are not checked.",
        ),
    ] = None,
    http: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT",
            help="Serve the HTTP API and the status page there, such as 127.0.0.1:8645; port 0"
            " takes any.",
        ),
    ] = None,
    http_token_file: Annotated[
        Path | None,
        typer.Option(
            help="The token for what changes something; made if it is missing. By default"
            " http.token in the data directory."
        ),
    ] = None,
    http_allow_host: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="A name by which clients may call the HTTP API, besides localhost and IP"
            " addresses; may be given many times.",
        ),
    ] = None,
    loop: Annotated[Loop, typer.Option(help="The event loop; uvloop is an extra.")] = Loop.ASYNCIO,
    as_json: AsJson = False,
) -> None:
    """Run one node from a genesis file and a data directory until Ctrl-C or SIGTERM.

    It syncs to its peers' best chain, follows it, serves it, and relays what is new. What it says
    is encrypted, and the id of every peer is proved.
    """
    make_loop = _loop_factory(loop)
    host, port = _address("--listen", listen)
    served = None if http is None else _address("--http", http)
    if served is None and (http_token_file or http_allow_host):
        raise bad_option("--http", "is missing, without which nothing is served over HTTP")
    for address in peer or ():
        _peer(address)
    config = ChainConfig.load(genesis)
    key = load_key(validator_key) if validator_key else None
    if key is not None and config.validators and key.public_key not in config.validators:
        raise ConfigError(f"key file {validator_key}: its key is no validator of {genesis}")
    trusted = None if trusted_head is None else _block(trusted_head)
    settings = NodeConfig(
        listen_host=host,
        listen_port=port,
        network_id=network_id,
        max_peers=max_peers,
        transport=transport.value,
        fast_sync=fast,
        backfill=backfill,
    )
    full_node = FullNode(
        data,
        config,
        bootstrap_nodes=tuple(peer or ()),
        settings=settings,
        producer_key=key,
        trusted_head=trusted,
    )
    token_file = http_token_file or data / "http.token"
    serving = _run_serving(full_node, served, token_file, tuple(http_allow_host or ()), as_json)
    with asyncio.Runner(loop_factory=make_loop) as runner:
        runner.run(serving)


def _loop_factory(loop: Loop) -> Callable[[], asyncio.AbstractEventLoop] | None:
    """None: asyncio's own."""
    if loop is Loop.ASYNCIO:
        return None
    try:
        import uvloop  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise ConfigError("--loop uvloop needs: pip install 'moderntensor[uvloop]'") from error
    return uvloop.new_event_loop


async def _run_serving(
    full_node: FullNode,
    at: tuple[str, int] | None,
    token_file: Path,
    names: tuple[str, ...],
    as_json: bool,
) -> None:
    """`run`, with HTTP where that is asked for."""
    api = None
    if at is not None:
        try:
            from ..api import ApiServer, load_token  # noqa: PLC0415 - needs an extra

            token = load_token(token_file, full_node.runtime)
            api = ApiServer(full_node, *at, token=token, allowed_hosts=names)
        except BaseException:
            await full_node.stop()
            raise
    await run(full_node, api, token_file, as_json)


def _address(option: str, text: str) -> tuple[str, int]:
    """Host and port; a usage error naming the option if it is no address."""
    try:
        if text.endswith(":0"):  # any port
            return parse_address(text + "1")[0], 0
        return parse_address(text)
    except ConfigError as error:
        raise bad_option(option, str(error)) from error


def _peer(text: str) -> NodeAddress:
    """A usage error if it is no address."""
    try:
        return parse_node_address(text)
    except ConfigError as error:
        raise bad_option("--peer", str(error)) from error


def _block(text: str) -> tuple[int, bytes]:
    """Height and hash; a usage error if it is neither."""
    height, _, digits = text.partition(":")
    digits = digits.removeprefix("0x")
    hexadecimal = len(digits) == 64 and all(c in "0123456789abcdefABCDEF" for c in digits)
    if not (height.isascii() and height.isdecimal() and len(height) <= 20 and hexadecimal):
        raise bad_option(
            "--trusted-head", f"{text!r} is not a height, a colon and the 64 hex digits of a hash"
        )
    return int(height), bytes.fromhex(digits)


async def run(
    full_node: FullNode,
    api: ApiServer | None = None,
    token_file: Path | None = None,
    as_json: bool = False,
) -> None:
    """Run the node, a status line now and then, until SIGINT or SIGTERM, and `api` with it. Raises
    what made a part of it fail."""
    loop = asyncio.get_running_loop()

    def end() -> None:
        if api is not None:
            api.begin_stop()  # whoever asks is told before anything closes
        full_node.request_stop()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, end)
    out = console()

    def say(event: str, text: str, **facts: object) -> None:
        if as_json:
            emit({"event": event, **facts}, line=True)
            sys.stdout.flush()
        else:
            out.print(text)

    def say_status() -> None:
        say("status", status_line(full_node), **node_facts(full_node))

    def synced() -> None:
        head = full_node.chain.head
        pivot = full_node.sync.status.pivot_height
        if pivot is not None:
            say(
                "state",
                f"began with the state of block {count(pivot)}, proved by its header",
                height=pivot,
            )
        say(
            "synced",
            f"synced to block {count(head.height)} ({short(head.hash)})",
            height=head.height,
            head_hash=head.hash.hex(),
        )

    full_node.sync.on_sync_complete = synced
    try:
        async with AsyncExitStack() as running:
            await running.enter_async_context(full_node)
            p2p = full_node.p2p
            where = NodeAddress(p2p.listen_host, p2p.listen_port, p2p.node_id)
            say(
                "listening",
                f"listening on {where}, genesis {short(full_node.chain.genesis_hash)}",
                address=str(where),
                genesis_hash=full_node.chain.genesis_hash.hex(),
            )
            if api is not None:
                await running.enter_async_context(api)
                say(
                    "http",
                    f"HTTP on {api.url}, the token is in {token_file}",
                    url=api.url,
                    token_file=str(token_file),
                )
            say_status()
            while not await _stopping(full_node, interval(full_node.sync.status)):
                say_status()
            say("stopping", "stopping")
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)
    height = full_node.chain.head.height
    say("stopped", f"stopped at block {count(height)}", height=height)


async def _stopping(full_node: FullNode, seconds: float) -> bool:
    """Whether the node is to stop; waits for that up to `seconds`."""
    try:
        async with asyncio.timeout(seconds):
            await full_node.wait_stopping()
    except TimeoutError:
        return False
    return True


def interval(status: SyncStatus) -> float:
    """Seconds until the next status line."""
    begins = status.phase in (SyncPhase.HEADERS, SyncPhase.STATE) and status.current_height == 0
    return STATE_INTERVAL if begins else STATUS_INTERVAL


def state_part(status: SyncStatus) -> str:
    """How far the state is that is being fetched."""
    part = f", state of block {count(status.pivot_height or 0)}"
    if status.accounts_total is None:
        return part
    part += (
        f": {count(status.accounts_done)} of {count(status.accounts_total)} accounts, "
        f"{count(status.accounts_per_second)} accounts/s, {size(status.bytes_received)}"
    )
    if status.eta_seconds is not None:
        part += f", {duration(status.eta_seconds)} to go"
    return part


def status_line(full_node: FullNode) -> str:
    """What the node does now, in one line."""
    status = full_node.sync.status
    head = full_node.chain.head
    line = (
        f"{status.phase.value}: block {count(head.height)} ({short(head.hash)}), "
        f"{len(full_node.p2p.peers)} peers"
    )
    if not full_node.chain.has_state:
        line += ", its accounts are not here yet"
    if status.phase is SyncPhase.STATE:
        line += state_part(status)
    elif status.eta_seconds is not None and status.target_height > head.height:
        line += (
            f", {status.progress:.1%} of {count(status.target_height)}, "
            f"{count(status.blocks_per_second)} blocks/s, {duration(status.eta_seconds)} to go"
        )
    if full_node.sync.backfilling:
        line += f", blocks from {count(full_node.chain.earliest_height)} on are here"
    clock = full_node.p2p.clock_offset
    if clock.off and clock.seconds is not None:
        line += f", clock off by {clock.seconds:+.0f} s"
    return line + f", {size(full_node.chain.store.size_on_disk())} on disk"
