"""``moderntensor peers``: whom a running node is connected to, and whom it shall be."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer
from rich.table import Table
from rich.text import Text

from .output import AsJson, console, count, duration, emit, seconds_of, size, working
from .remote import (
    DataDirectory,
    Node,
    TokenFile,
    ask,
    emit_model,
    plain,
    token_in,
)
from .status import DEFAULT_NODE

if TYPE_CHECKING:
    from ..client.model import Peer

app = typer.Typer(
    help="Show the peers of a running node, connect, part, ban and unban.",
    invoke_without_command=True,
)


class Above(NamedTuple):
    """What stood before the command below ``peers``: it means the same there."""

    node: str | None
    as_json: bool


Address = Annotated[str, typer.Argument(metavar="HOST:PORT", help="As the list has it.")]
Key = Annotated[
    str,
    typer.Argument(
        metavar="WHOM", help="An IP address, a network (10.0.0.0/8), HOST:PORT or a node id."
    ),
]


@app.callback()
def peers(context: typer.Context, node: Node = DEFAULT_NODE, as_json: AsJson = False) -> None:
    """Show the peers of a running node, connect, part, ban and unban."""
    if context.invoked_subcommand is None:
        show(node, as_json)
    else:
        context.obj = Above(node if _was_given(context, "node") else None, as_json)


@app.command("list")
def list_them(context: typer.Context, node: Node = DEFAULT_NODE, as_json: AsJson = False) -> None:
    """List the peers, the one that answers fastest on top."""
    show(_chosen(context, node), _in_json(context, as_json))


@app.command("add")
def add(
    context: typer.Context,
    address: Annotated[str, typer.Argument(metavar="[ID@]HOST:PORT", help="Whom to dial.")],
    node: Node = DEFAULT_NODE,
    data: DataDirectory = None,
    token_file: TokenFile = None,
    as_json: AsJson = False,
) -> None:
    """Connect the node to one more peer."""
    with working(f"connecting to {plain(address)}"):
        peer = ask(
            _chosen(context, node),
            lambda client: client.add_peer(address),
            token_in(token_file, data),
        )
    if _in_json(context, as_json):
        emit_model(peer)
    else:
        console().print(f"connected to {peer.node_id} at {plain(peer.address)}", markup=False)


@app.command("drop")
def drop(
    context: typer.Context,
    address: Address,
    node: Node = DEFAULT_NODE,
    data: DataDirectory = None,
    token_file: TokenFile = None,
    as_json: AsJson = False,
) -> None:
    """Part from a peer. It may come back: `ban` keeps it away."""
    ask(
        _chosen(context, node), lambda client: client.drop_peer(address), token_in(token_file, data)
    )
    if _in_json(context, as_json):
        emit({"dropped": address})
    else:
        console().print(f"parted from {plain(address)}", markup=False)


@app.command("ban")
def ban(
    context: typer.Context,
    whom: Key,
    length: Annotated[
        str, typer.Option("--for", metavar="TIME", help="How long: seconds, or 15m, 24h, 7d.")
    ] = "24h",
    reason: Annotated[str | None, typer.Option(help="A word for the list.")] = None,
    node: Node = DEFAULT_NODE,
    data: DataDirectory = None,
    token_file: TokenFile = None,
    as_json: AsJson = False,
) -> None:
    """Part from WHOM, and neither dial nor admit it any more."""
    seconds = seconds_of("--for", length)
    made = ask(
        _chosen(context, node),
        lambda client: client.ban(whom, seconds, reason),
        token_in(token_file, data),
    )
    if _in_json(context, as_json):
        emit_model(made)
    else:
        console().print(f"banned {plain(made.key)} for {duration(made.seconds_left)}", markup=False)


@app.command("unban")
def unban(
    context: typer.Context,
    whom: Key,
    node: Node = DEFAULT_NODE,
    data: DataDirectory = None,
    token_file: TokenFile = None,
    as_json: AsJson = False,
) -> None:
    """End the ban of WHOM, as `bans` lists it."""
    ask(_chosen(context, node), lambda client: client.unban(whom), token_in(token_file, data))
    if _in_json(context, as_json):
        emit({"unbanned": whom})
    else:
        console().print(f"lifted the ban of {plain(whom)}", markup=False)


@app.command("bans")
def bans(context: typer.Context, node: Node = DEFAULT_NODE, as_json: AsJson = False) -> None:
    """List who is banned, the one whose ban ends first on top."""
    found = ask(_chosen(context, node), lambda client: client.bans())
    found.sort(key=lambda ban: (ban.seconds_left, ban.key))
    if _in_json(context, as_json):
        emit_model(found)
        return
    if not found:
        console().print("nobody is banned")
        return
    table = Table("whom", "ends in", "why", box=None, pad_edge=False)
    for each in found:
        row = plain(each.key), duration(each.seconds_left), plain(each.reason)
        table.add_row(*map(Text, row))
    console().print(table)


def show(node: str, as_json: bool) -> None:
    """The list of peers."""
    found = ask(node, lambda client: client.peers())
    found.sort(key=lambda peer: (peer.latency is None, peer.latency or 0.0, peer.address))
    if as_json:
        emit_model(found)
    elif found:
        console().print(peer_table(found))
    else:
        console().print("no peers")


def peer_table(peers: list[Peer], *, narrow: bool = False) -> Table:
    """One line each; `narrow` leaves out what 60 columns have no room for."""
    names = ["address", "way", "height", "latency"]
    if not narrow:
        names += ["received", "sent", "score", "for", "software", "node id"]
    table = Table(box=None, pad_edge=False)
    for name in names:
        right = name in ("height", "latency", "received", "sent", "score", "for")
        table.add_column(
            name, justify="right" if right else "left", no_wrap=True, overflow="ellipsis"
        )
    for peer in peers:
        row = [
            plain(peer.address),
            "out" if peer.outbound else "in",
            count(peer.best_height),
            "-" if peer.latency is None else f"{peer.latency * 1000:.0f} ms",
        ]
        if not narrow:
            row += [
                size(peer.bytes_received),
                size(peer.bytes_sent),
                f"{peer.score:.0f}",
                duration(peer.connected_for),
                plain(peer.user_agent),
                peer.node_id[:16],
            ]
        table.add_row(*map(Text, row))
    return table


def _chosen(context: typer.Context, node: str) -> str:
    """`peers --node URL list` means the same as `peers list --node URL`."""
    above = context.obj
    if isinstance(above, Above) and above.node is not None and not _was_given(context, "node"):
        return above.node
    return node


def _in_json(context: typer.Context, as_json: bool) -> bool:
    return as_json or (isinstance(context.obj, Above) and context.obj.as_json)


def _was_given(context: typer.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"
