"""Commands that are imported when they are asked for, so that each starts with what it needs."""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from importlib import import_module
from typing import Any, Final

import typer
import typer.core
import typer.main

# Name to module and what is there: a Typer with commands below it, or the function of one.
COMMANDS: Final = {
    "status": ("status", "status"),
    "peers": ("peers", "app"),
    "top": ("top", "top"),
    "tx": ("tx", "app"),
    "account": ("account", "app"),
    "node": ("node", "node"),
    "chain": ("chain", "app"),
    "keys": ("keys", "app"),
    "bans": ("bans", "app"),
    "state": ("state", "app"),
    "demo": ("demo", "demo"),
    "simulate": ("simulate", "simulate"),
}


class LazyCommands(MutableMapping[str, Any]):
    """The commands by name; looking one up imports it."""

    def __init__(self) -> None:
        self._found: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        if name not in self._found:
            module, attribute = COMMANDS[name]
            self._found[name] = command_of(
                name, getattr(import_module(f".{module}", __package__), attribute)
            )
        return self._found[name]

    def __contains__(self, name: object) -> bool:
        return name in COMMANDS

    def __iter__(self) -> Iterator[str]:
        return iter(COMMANDS)

    def __len__(self) -> int:
        return len(COMMANDS)

    def __setitem__(self, name: str, command: Any) -> None:
        raise TypeError("commands are declared in COMMANDS")

    def __delitem__(self, name: str) -> None:
        raise TypeError("commands are declared in COMMANDS")


class LazyGroup(typer.core.TyperGroup):
    """A group of such commands."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        self.commands = LazyCommands()

    def list_commands(self, ctx: Any) -> list[str]:
        """Their names; the base class would import them all."""
        return list(self.commands)


def command_of(name: str, declared: Any) -> Any:
    """What typer makes of a Typer or of a function."""
    if isinstance(declared, typer.Typer):
        command: Any = typer.main.get_group(declared)
        command.name = name
        return command
    alone = typer.Typer(add_completion=False, rich_markup_mode="rich")
    alone.command(name)(declared)
    return typer.main.get_command(alone)
