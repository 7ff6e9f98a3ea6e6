import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.table import Table


@dataclass(frozen=True)
class Figure:
    """One row of the table: something measured, beside the same thing of a peer where there is one."""

    what: str
    ours: str
    peer: str = ""
    """What the peer reached, its name included."""
    ratio: float | None = None
    """Ours over the peer's, of one run; None: there is no peer."""
    goal: str = ""
    """What the project asks of the ratio, or of the figure."""
    floor: str = ""
    """What the hardware would allow, or how far away from it this is."""


def print_figures(console: Console, title: str, figures: Sequence[Figure]) -> None:
    """The table, every row whole on 100 columns."""
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    for column in ("what", "ours", "peer", "ratio", "goal", "floor"):
        table.add_column(column, justify="right" if column == "ratio" else "left")
    for row in figures:
        ratio = "" if row.ratio is None else f"{row.ratio:.2f}x"
        table.add_row(row.what, row.ours, row.peer, ratio, row.goal, row.floor)
    console.print(table)


@dataclass
class Timing:
    """What a contender needed: the first call, compilation included, and each counted one."""

    first_seconds: float
    seconds: list[float]

    @property
    def median(self) -> float:
        """Seconds of a call."""
        return statistics.median(self.seconds)


def time_interleaved(
    contenders: Mapping[str, Callable[[], Any]], rounds: int, console: Console
) -> dict[str, Timing]:
    """Times every contender once per round, in turn, so that a slow moment of the machine falls on all of them.

    The first call of each is timed apart and not counted.
    """
    timings: dict[str, Timing] = {}
    for name, call in contenders.items():
        console.print(f"first call: {name} …", highlight=False)
        timings[name] = Timing(_seconds(call), [])
    for number in range(rounds):
        for name, call in contenders.items():
            timings[name].seconds.append(_seconds(call))
        console.print(f"round {number + 1} of {rounds}", highlight=False)
    return timings


def ratio_of(timings: Mapping[str, Timing], slower: str, faster: str) -> float:
    """How many times faster `faster` is than `slower`: the median of the ratios round by round."""
    pairs = zip(timings[slower].seconds, timings[faster].seconds, strict=True)
    return statistics.median(slow / fast for slow, fast in pairs)


def best_of(timings: Mapping[str, Timing], family: str) -> str:
    """The contender of a family (the beginning of its name) with the lowest median."""
    return min((name for name in timings if name.startswith(family)), key=lambda name: timings[name].median)


def _seconds(call: Callable[[], Any]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start
