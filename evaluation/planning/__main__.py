"""The planner against what real runs hold, each in processes of its own.

    python -m evaluation.planning [--quick] [--only NAME …]

Fourteen configurations of PyTorch's engine and nine of ZeRO against the peak that PyTorch's allocator had given
out, and three of the reference's shape against the growth of a process on the CPU, with freed memory kept and
returned. Prints a Markdown table; the exit code is 1 if a bound is missed.
"""

import argparse
import sys
from collections.abc import Iterator
from itertools import chain

from evaluation.planning.cases import CASES, FRESH, GROWTH, HELD_OUT, ZERO
from evaluation.planning.compare import Comparison, compare_growth, compare_peak, run_child


def table(rows: Iterator[Comparison]) -> bool:
    """Prints each as it is known; whether all hold."""
    print("| configuration | held out | compared with | planned MiB | measured MiB | error | bound |")
    print("|---|---|---|---|---|---|---|")
    holds = True
    for row in rows:
        held = "yes" if row.name in HELD_OUT else ""
        sizes = f"{row.planned / 2**20:,.1f} | {row.measured / 2**20:,.1f}"
        missed = "" if row.holds else " missed"
        print(
            f"| {row.name} | {held} | {row.kind} | {sizes} | {row.error:+.1%} | {row.limit:.0%}{missed} |",
            flush=True,
        )
        holds = holds and row.holds
    return holds


def main() -> int:
    """The table on stdout; 1 if a bound is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="without the reference's shape")
    parser.add_argument("--only", action="append", help="a configuration by name")
    parser.add_argument("--child", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        what, name, store, rank = options.child
        run_child(what, name, store, int(rank))
        return 0
    wanted = options.only or [case.name for case in CASES + FRESH + ZERO + (() if options.quick else GROWTH)]
    peaks = (compare_peak(case) for case in CASES + FRESH + ZERO if case.name in wanted)
    growths = (compare_growth(case) for case in GROWTH if case.name in wanted)
    return 0 if table(chain(peaks, growths)) else 1


if __name__ == "__main__":
    sys.exit(main())
