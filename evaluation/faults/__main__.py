"""`python -m evaluation.faults [PART …] [--trials N] [--signals N] [--deadline SECONDS]`."""

import argparse
import sys
from collections.abc import Callable, Sequence

from rich.console import Console

from evaluation.arguments import check_names
from evaluation.faults.study import Row, print_rows, study_agreement, study_faults, study_signals
from parallax.errors import run_and_explain

_PARTS = ("faults", "signals", "agreement")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs what was asked for and prints one table; returns the exit code: 1 where a bound did not hold."""
    parser = argparse.ArgumentParser(prog="python -m evaluation.faults", description="Faults, let loose.")
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(_PARTS)}; default: all")
    parser.add_argument("--trials", type=int, default=5, help="of each fault")
    parser.add_argument("--signals", type=int, default=50, help="sent one after the other to random ranks")
    parser.add_argument("--steps", type=int, default=200, help="with the agreement, and as many without")
    parser.add_argument("--deadline", type=float, default=30.0, metavar="SECONDS")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(arguments)
    return run_and_explain(lambda: _study(given))


def _study(given: argparse.Namespace) -> int:
    check_names(given.parts, _PARTS, "PART")
    console = Console()
    run: dict[str, Callable[[], list[Row]]] = {
        "faults": lambda: study_faults(given.trials, given.deadline, given.seed, console),
        "signals": lambda: study_signals(given.signals, given.deadline, given.seed),
        "agreement": lambda: study_agreement(given.steps, given.deadline),
    }
    rows = [row for part in _PARTS if part in (given.parts or _PARTS) for row in run[part]()]
    print_rows(console, f"four processes over gloo on one host; deadline {given.deadline:g} s", rows)
    return 0 if all(row.held for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
