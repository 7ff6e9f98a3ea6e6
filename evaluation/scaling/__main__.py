"""`python -m evaluation.scaling [--precision P] [--link MEGABITS] [--rounds N] [--config FILE] [--set K=V]`."""

import argparse
import statistics
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

from rich.console import Console
from rich.table import Table

from evaluation.faults.network import Link, why_no_link
from evaluation.scaling.team import Contender, Team
from parallax.errors import BackendError, run_and_explain

_ONE = "1 process x 1 thread"
_CONTENDERS = [
    Contender(_ONE),
    Contender("1 process x 2 threads", threads=2),
    Contender("tracks, vocab_split", ranks=2, track=2, shared="vocab_split"),
    Contender("tracks, overlap", ranks=2, track=2, shared="vocab_split", overlap=True),
    Contender("tracks, copy_reduce", ranks=2, track=2, shared="copy_reduce"),
    Contender("DDP", ranks=2),
    Contender("FSDP2", ranks=2, dp_shard=2),
]


@dataclass
class Timings:
    """What a contender's steps took, in seconds."""

    sent_bytes: int
    steps: list[float] = field(default_factory=list)
    updates: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        """Of the steps."""
        return statistics.median(self.steps)


def main(arguments: Sequence[str] | None = None) -> int:
    """Times every contender once a round, in turn, and prints a table for each link; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m evaluation.scaling", description="Two ranks beside one.")
    parser.add_argument("--config", default="configs/reference.yaml")
    parser.add_argument("--set", action="append", default=[], metavar="key=value", help="change a setting")
    parser.add_argument("--precision", default="fp32", choices=["fp32", "bf16"])
    parser.add_argument("--rounds", type=int, default=5, help="counted steps of each contender, interleaved")
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
    free = _measure(given, None, console)
    _print(console, f"{given.config}, {given.precision}, one host", free)
    for megabits in given.link:
        with Link() as link:
            link.limit(megabits)
            found = _measure(given, link, console)
        _print(console, f"{given.config}, {given.precision}, {megabits:g} Mbit/s", found, free, megabits)
    return 0


def _measure(given: argparse.Namespace, link: Link | None, console: Console) -> dict[str, Timings]:
    common = {"config": given.config, "overrides": given.set, "precision": given.precision}
    # What does not talk needs no link.
    chosen = [c for c in _CONTENDERS if link is None or c.ranks > 1 or c.name == _ONE]
    with ExitStack() as stack:
        teams = {c.name: stack.enter_context(Team(c, common, link)) for c in chosen}
        timings = {name: Timings(team.sent_bytes) for name, team in teams.items()}
        for name, team in teams.items():
            console.print(f"first step: {name}: {team.step()[0]:.2f} s", highlight=False)
        for number in range(given.rounds):
            for name, team in teams.items():
                step, update = team.step()
                timings[name].steps.append(step)
                timings[name].updates.append(update)
            console.print(f"round {number + 1} of {given.rounds}", highlight=False)
    return timings


def _print(
    console: Console,
    title: str,
    found: dict[str, Timings],
    free: dict[str, Timings] | None = None,
    megabits: float = 0.0,
) -> None:
    table = Table(title=f"{title}: medians of interleaved steps", title_justify="left", box=None, pad_edge=False)
    for column in ("", "s/step", "min - max", "update", "ratio", "MiB", "predicted"):
        table.add_column(column, justify="left" if not column else "right", no_wrap=True)
    for name, timing in found.items():
        ratios = [one / own for one, own in zip(found[_ONE].steps, timing.steps, strict=True)]
        predicted = ""
        if free is not None and timing.sent_bytes:
            expected = free[name].median + 8 * timing.sent_bytes / (megabits * 1e6)
            predicted = f"{expected:.2f} s ({timing.median / expected:.2f})"
        table.add_row(
            name,
            f"{timing.median:.2f}",
            f"{min(timing.steps):.2f} - {max(timing.steps):.2f}",
            f"{statistics.median(timing.updates):.2f}",
            f"{statistics.median(ratios):.2f}",
            f"{timing.sent_bytes / 2**20:,.0f}",
            predicted,
        )
    console.print(table)


if __name__ == "__main__":
    sys.exit(main())
