"""The addresses that a node knows of, and which of them it may dial when."""

from __future__ import annotations

from .book import AddressBook
from .entry import KnownAddress

__all__ = ["AddressBook", "KnownAddress"]
