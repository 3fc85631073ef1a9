"""`python -m fuzz`: one target under atheris, or all of them by turns. `.ci/fuzz` sets it up."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from .campaign import Campaign
from .sessions import MODES, known_targets, run_here


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m fuzz", description=__doc__)
    parser.add_argument("targets", nargs="*", help="which (default: all of them)")
    parser.add_argument("--list", action="store_true", help="name the targets")
    parser.add_argument("--here", action="store_true", help="one target in this process, for good")
    parser.add_argument("--mode", choices=MODES, action="append", help="default: twins")
    parser.add_argument("--seconds", type=int, default=2, help="of one slice (default: 2)")
    parser.add_argument("--minutes", type=float, help="go on by turns for so long; else one turn")
    parser.add_argument("--work", type=Path, help="keeps corpora, findings and figures")
    parser.add_argument(
        "--native", type=Path, help="where engines for the modes native and native-twins were built"
    )
    parser.add_argument("--jobs", type=int, default=1, help="processes at once (default: 1)")
    options, fuzzer_arguments = parser.parse_known_args()
    mode = (options.mode or ["twins"])[0]
    if options.here:
        (name,) = options.targets
        run_here(name, mode, options.native, fuzzer_arguments)
        return 0
    if fuzzer_arguments:
        parser.error(f"not understood: {' '.join(fuzzer_arguments)}")
    known = known_targets()
    if options.list:
        print("\n".join(known))
        return 0
    unknown = set(options.targets) - set(known)
    if unknown:
        parser.error(f"no such target: {', '.join(sorted(unknown))}")
    campaign = Campaign(
        work=options.work,
        native=options.native,
        targets={name: known[name] for name in options.targets or known},
        modes=options.mode or ["twins"],
        seconds=options.seconds,
        jobs=options.jobs,
    )
    return campaign.run(options.minutes)


sys.exit(main())
