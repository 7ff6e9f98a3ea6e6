"""`python -m evaluation.scaling [--precision P] [--link MEGABITS] [--rounds N] [--rows N] [--only NAME]`."""

import argparse
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from rich.console import Console

from evaluation.arguments import check_names
from evaluation.faults.network import Link, why_no_link
from evaluation.scaling.contenders import BASE, COPIED, GROUPS, OVERLAP, SPLIT, Contender
from evaluation.scaling.measure import Rounds, Study
from evaluation.scaling.report import Row, print_gap, print_overlap, print_rows
from parallax.errors import BackendError, run_and_explain


def main(arguments: Sequence[str] | None = None) -> int:
    """Times every contender once a round, in turn, and prints a table for each link; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m evaluation.scaling", description="Two ranks beside one.")
    parser.add_argument("--config", default="configs/reference.yaml")
    parser.add_argument("--set", action="append", default=[], metavar="key=value", help="change a setting")
    parser.add_argument("--precision", default="fp32", choices=["fp32", "bf16"])
    parser.add_argument("--rows", type=int, default=2, help="windows of a step, the same for everybody")
    parser.add_argument("--rounds", type=int, default=5, help="counted steps of each contender, interleaved")
    parser.add_argument("--only", action="append", default=[], metavar="NAME", help="contenders beside the base")
    parser.add_argument("--output", type=Path, help="folder of results; what it has is not measured again")
    parser.add_argument(
        "--link",
        action="append",
        type=float,
        default=[],
        metavar="MEGABITS",
        help="also with a link of so many megabits a second between the two ranks; needs root",
    )
    given = parser.parse_args(arguments)
    return run_and_explain(lambda: _compare(given))


def _compare(given: argparse.Namespace) -> int:
    if given.link and (why := why_no_link()) is not None:
        raise BackendError(f"--link: {why}; leave it out to compare on one host")
    console = Console()
    study = Study(given.config, given.set, given.precision, given.rounds, given.output, console)
    title = f"{given.config}, {given.precision}, {given.rows} windows"
    free: Rounds = {}
    for megabits in [None, *given.link]:
        rows = []
        for group in _chosen(given.only):
            members = [BASE, *(c for c in group if megabits is None or c.ranks > 1)]
            with ExitStack() as stack:
                link = stack.enter_context(Link()) if megabits else None
                if link is not None and megabits:
                    link.limit(megabits)
                found = study.measure(members, [given.rows], link, megabits)
            rows += _rows(members, found, given.rows, free if megabits else {})
            if megabits is None:
                free |= found
        print_rows(console, f"{title}, {f'{megabits:g} Mbit/s' if megabits else 'one host'}", rows, megabits)
        _print_more({row.name: row for row in rows}, console, linked=megabits is not None)
    return 0


def _chosen(names: list[str]) -> list[list[Contender]]:
    known = list(dict.fromkeys(contender.name for group in GROUPS for contender in group))
    check_names(names, known, "--only")
    chosen = [[c for c in group if not names or c.name in names] for group in GROUPS]
    return [group for group in chosen if group]


def _rows(members: list[Contender], found: Rounds, count: int, free: Rounds) -> list[Row]:
    base = found[BASE.name, count]
    return [Row(c.name, found[c.name, count], base, free.get((c.name, count))) for c in members]


def _print_more(rows: dict[str, Row], console: Console, *, linked: bool) -> None:
    if linked and SPLIT.name in rows and OVERLAP.name in rows:
        print_overlap(console, rows[SPLIT.name], rows[OVERLAP.name])
    for name in (SPLIT.name, COPIED.name):
        if not linked and name in rows:
            print_gap(console, rows[name])


if __name__ == "__main__":
    sys.exit(main())
