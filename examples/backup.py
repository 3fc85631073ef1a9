"""Copy the chain of a node while it runs: ``python examples/backup.py node-0/chain backup/chain``

LMDB keeps the state of a commit readable as long as somebody reads it. The copy is made in one read
transaction, so it is the chain after one commit, whatever is written meanwhile. Copying the file by
other means (cp, rsync, ...) is right only while no node has it open. It has to be a process of its
own: LMDB lets none open the same file twice.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import lmdb


def backup(store: Path, target: Path) -> int:
    """Copy the store in the directory `store` to the new directory `target`; bytes of the copy.

    FileExistsError if `target` is there already, lmdb.Error or OSError if it cannot be done; then
    `target` is not a store.
    """
    target.mkdir(parents=True, mode=0o700)
    unfinished = target / "new.mdb"  # what a store that is not whole is called
    with (
        lmdb.open(str(store / "data.mdb"), subdir=False, readonly=True, create=False) as env,
        unfinished.open("xb") as file,
    ):
        env.copyfd(file.fileno(), compact=True)  # without pages that nothing is in
        os.fsync(file.fileno())
    unfinished.rename(target / "data.mdb")
    shutil.copyfile(store / "FORMAT", target / "FORMAT")
    return (target / "data.mdb").stat().st_size


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(f"usage: {sys.argv[0]} STORE TARGET")
    print(f"{backup(Path(sys.argv[1]), Path(sys.argv[2])):,} bytes")
