"""What a simulated machine keeps when its process dies.

Everything is in memory: a directory of the file system for each of a thousand hosts would cost
real time for every `fsync`, and leave files behind where a run is killed. The product's own code
for small files stays in use but for the last step, by the seam in `network.state_file`.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from ..blockchain.tables import TABLES
from ..errors import StorageError
from ..storage import MemoryStore, ReadTransaction, Store, WriteTransaction

__all__ = ["Mount", "SimDisk"]


class SimDisk:
    """The committed tables of a chain, and small files by name: address book, anchors, bans.

    A commit is on the disk when its transaction ends, a file when `write` returns; what was not
    written by then is lost with the process. Snapshots are not kept: a node makes them again.
    """

    def __init__(self) -> None:
        self.store: Final = MemoryStore(TABLES)
        self.files: Final[dict[str, bytes]] = {}
        self.versions: Final[dict[str, int]] = {}

    def put(self, store: Store) -> None:
        """Put the chain in `store` on a disk that holds none; the bytes themselves are shared."""
        with store.read() as source, self.store.write() as target:
            for table in TABLES:
                target.put_many(table, source.range(table))

    def mount(self) -> Mount:
        """For one process; the one before must have been `cut`."""
        return Mount(self)


class Mount:
    """The disk as one process sees it, a `node.Disk`; nothing reaches the disk after `cut`."""

    def __init__(self, disk: SimDisk) -> None:
        self._disk = disk
        self.store: Final = _MountedStore(disk.store)

    @property
    def disk(self) -> SimDisk:
        """What is mounted. StorageError after `cut`."""
        self.store.check()
        return self._disk

    def file(self, name: str) -> SimFile:
        """The file of this name, which need not exist."""
        return SimFile(self, name)

    def cut(self) -> None:
        """The process has ended, or been killed."""
        self.store.attached = False


class SimFile:
    """A `StateFile` on a simulated disk."""

    __slots__ = ("_mount", "_name")

    def __init__(self, mount: Mount, name: str) -> None:
        self._mount = mount
        self._name = name

    def __str__(self) -> str:
        return self._name

    def read(self, cap: int) -> bytes | None:
        """As `StateFile`."""
        data = self._mount.disk.files.get(self._name)
        if data is not None and len(data) > cap:
            raise StorageError(f"{self}: larger than {cap} bytes")
        return data

    def write(self, data: bytes) -> None:
        """As `StateFile`."""
        disk = self._mount.disk
        disk.files[self._name] = data
        disk.versions[self._name] = disk.versions.get(self._name, 0) + 1

    def set_aside(self) -> str:
        """As `StateFile`."""
        disk = self._mount.disk
        bad = f"{self._name}.bad"
        disk.files[bad] = disk.files.pop(self._name)
        return bad

    def stamp(self) -> Hashable | None:
        """As `StateFile`."""
        disk = self._mount.disk
        return disk.versions.get(self._name) if self._name in disk.files else None

    @contextmanager
    def locked(self) -> Iterator[None]:
        """As `StateFile`; nobody else is there."""
        yield


class _MountedStore(Store):
    """The tables of the disk, until they are taken away."""

    def __init__(self, store: MemoryStore) -> None:
        self._store = store
        self.attached = True

    def check(self) -> None:
        """StorageError once the process has no disk any more."""
        if not self.attached:
            raise StorageError("the process has ended, and its disk with it")

    @property
    def path(self) -> Path | None:
        return None

    def read(self) -> ReadTransaction:
        return self._store.read()

    def write(self) -> WriteTransaction:
        self.check()
        return self._store.write()

    def size_on_disk(self) -> int:
        return self._store.size_on_disk()

    def sync(self) -> None:
        self.check()

    def close(self) -> None:
        self.attached = False
