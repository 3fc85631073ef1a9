"""What a node remembers between its runs."""

from __future__ import annotations

from .addressbook import AddressBook
from .anchors import Anchors
from .ban_file import BanKeeper
from .life import Work

__all__ = ["Memory"]


class Memory:
    """Addresses, anchors and bans, each in a file of its own; nothing without a directory."""

    def __init__(self, book: AddressBook, anchors: Anchors, bans: BanKeeper | None) -> None:
        self._book = book
        self._anchors = anchors
        self._bans = bans

    async def load(self) -> None:
        """Before anybody is dialled. Damaged files are set aside."""
        if self._bans is not None:
            await self._bans.load()
        await self._book.load()
        await self._anchors.load()

    def works(self) -> list[Work]:
        """What writes the files while the node runs."""
        works: list[Work] = [
            ("keeping addresses", self._book.keep),
            ("keeping anchors", self._anchors.run),
        ]
        if self._bans is not None:
            works.append(("keeping bans", self._bans.run))
        return works

    async def close(self) -> None:
        """What has changed since. What cannot be written is logged."""
        if self._bans is not None:
            await self._bans.close()
        await self._book.save()
        await self._anchors.close()
