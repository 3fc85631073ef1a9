"""Some kinds alone: `python -m benchmarks.compare.streams SIZE [KIND ...]`."""

from __future__ import annotations

import sys
from statistics import median

from . import KINDS
from .pair import Pair

ROUNDS = 5
SECONDS = 0.5


def main() -> None:
    size, kinds = int(sys.argv[1]), sys.argv[2:] or list(KINDS)
    for kind in kinds:
        with Pair(kind) as pair:
            runs = [pair.run_for(size, SECONDS) for _ in range(ROUNDS)]
            rates = sorted(run.rate for run in runs)
            print(
                f"{kind:28}{median(rates):14,.0f} messages/s ({rates[0]:,.0f} to {rates[-1]:,.0f})"
                f"{median(rates) * size / 1e6:8,.0f} MB/s"
                f"   sender {median(run.sender_cost for run in runs) * 1e9:8,.0f} ns of processor,"
                f" receiver {median(run.receiver_cost for run in runs) * 1e9:8,.0f}"
            )


if __name__ == "__main__":
    main()
