"""Follow pages of documentation literally: ``python tests/docs/follow.py docs/tutorial.md``.

Runs what is installed beside the interpreter, with the ports that the page names if they are free.
``--tree`` runs the package of this tree.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from helpers.page_run import Following
from helpers.pages import PageError, read_page


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pages", nargs="+", type=Path)
    parser.add_argument("--tree", action="store_true", help="the package of this tree")
    parser.add_argument("--show", action="store_true", help="what each block prints")
    arguments = parser.parse_args()
    for path in arguments.pages:
        with tempfile.TemporaryDirectory() as directory:
            try:
                page = read_page(path)
                with Following(
                    Path(directory), literal=True, installed=not arguments.tree
                ) as following:
                    following.told = print if arguments.show else None
                    following.follow(page)
            except PageError as error:
                print(error, file=sys.stderr)
                return 1
        print(f"{path}: {len(page.blocks) - len(page.skipped)} blocks held")
    return 0


if __name__ == "__main__":
    sys.exit(main())
