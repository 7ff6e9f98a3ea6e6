import statistics
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table

from evaluation.scaling.contenders import BASE, COPIED, OVERLAP, SPLIT
from evaluation.scaling.measure import Timings, interval

_WAITS_SEEN = {contender.name for contender in (SPLIT, OVERLAP, COPIED)}
"""Of the others `WaitClock` misses some."""


@dataclass(frozen=True)
class Row:
    """A contender beside the base that was timed in the same rounds."""

    name: str
    timing: Timings
    base: Timings
    free: Timings | None
    """The same contender without a link; None: there is no link."""

    @property
    def ratios(self) -> list[float]:
        """Of the base's steps to its own, round by round."""
        pairs = zip(self.base.steps, self.timing.steps, strict=True)
        return [one.step / own.step for one, own in pairs]

    def predicted(self, megabits: float) -> float | None:
        """Seconds: the step without the link, and the ledger's bytes over its bandwidth."""
        if self.free is None or not self.timing.sent_bytes:
            return None
        return self.free.median() + 8 * self.timing.sent_bytes / (megabits * 1e6)


def print_rows(console: Console, title: str, rows: list[Row], megabits: float | None) -> None:
    """One line a contender: medians, the multiple of the base's speed with its interval, and the prediction."""
    table = Table(title=f"{title}: medians", title_justify="left", box=None, pad_edge=False)
    for column in ("", "s/step", "wait", "x base", "95 %", "MiB", "predicted" if megabits else "update"):
        table.add_column(column, justify="right" if column else "left", no_wrap=True)
    for row in rows:
        low, high = interval(row.ratios)
        predicted = row.predicted(megabits) if megabits else None
        median = row.timing.median()
        last = f"{predicted:.2f} ({median / predicted:.2f})" if predicted else ""
        if megabits is None:
            last = f"{row.timing.median('update'):.2f}"
        table.add_row(
            row.name,
            f"{median:.2f}",
            f"{row.timing.median('wait'):.2f}" if row.name in _WAITS_SEEN else "",
            f"{statistics.median(row.ratios):.2f}",
            f"{low:.2f}-{high:.2f}",
            f"{row.timing.sent_bytes / 2**20:,.0f}",
            last,
        )
    console.print(table)


def print_gap(console: Console, row: Row) -> None:
    """What two ranks need more than half of one thread's step, by where it goes."""
    base, own = row.base, row.timing
    half = base.median() / 2
    update = own.median("update") - base.median("update") / 2
    wait = own.median("wait")
    gap = own.median() - half
    shares = {"compute": gap - update - wait, "wait": wait, "optimizer": update}
    parts = ", ".join(f"{name} {seconds:+.3f} s ({seconds / half:+.1%})" for name, seconds in shares.items())
    console.print(
        f"{row.name}: half of {BASE.name} is {half:.3f} s, it takes {own.median():.3f} s "
        f"({2 * half / own.median():.2f}x):\n  {parts}",
        highlight=False,
    )


def print_overlap(console: Console, plain: Row, overlapping: Row) -> None:
    """How much of the wait that the link brings is hidden by computing meanwhile."""
    if plain.free is None or overlapping.free is None:
        return
    waits = plain.timing.median() - plain.free.median()
    left = overlapping.timing.median() - overlapping.free.median()
    saved = plain.timing.median() - overlapping.timing.median()
    console.print(
        f"overlap: the link adds {waits:.2f} s to a step, and {left:.2f} s with overlap: {1 - left / waits:.0%} "
        f"of it hidden ({saved / waits:.0%} counting what cutting the batch costs)",
        highlight=False,
    )
