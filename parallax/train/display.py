import os
import sys
import textwrap
from collections.abc import Mapping
from typing import Any, Protocol

from rich.cells import chop_cells
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn

from parallax.metrics.journal import OTHER_VALIDATION


class Display(Protocol):
    """What a person sees of a run."""

    def begin(self, done: int, total: int) -> None:
        """Training starts or goes on after step `done`."""
        ...

    def message(self, text: str) -> None:
        """A line that stays."""
        ...

    def tick(self, step: int) -> None:
        """A step is done; called after every one, so it must cost nothing."""
        ...

    def step(self, record: Mapping[str, Any]) -> None:
        """A journal record."""
        ...

    def end(self) -> None:
        """Training is over; later messages are plain lines."""
        ...


class _LastingConsole(Console):
    """Goes silent when its reader goes away (`parallax train … | head`); training does not end over that."""

    def on_broken_pipe(self) -> None:
        self.quiet = True
        devnull = os.open(os.devnull, os.O_WRONLY)
        os.dup2(devnull, sys.stdout.fileno())
        os.close(devnull)


def build_console() -> Console:
    """The console of a training run, on stdout."""
    return _LastingConsole()


def open_display(console: Console) -> Display:
    """A live bar on a terminal, plain lines elsewhere (files, Slurm logs, CI)."""
    return LiveDisplay(console) if console.is_terminal else PlainDisplay(console)


class PlainDisplay:
    """One line per record."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._total = 0

    def begin(self, done: int, total: int) -> None:
        """See `Display`."""
        self._total = total

    def message(self, text: str) -> None:
        """See `Display`."""
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def tick(self, step: int) -> None:
        """See `Display`."""

    def step(self, record: Mapping[str, Any]) -> None:
        """See `Display`."""
        self.message(f"step {record['step']:>6}/{self._total}  {describe(record, self._total)}")
        if "sample" in record:
            self.message(quote_sample(record["sample"]))

    def end(self) -> None:
        """See `Display`."""


class SilentDisplay:
    """Shows nothing: for the ranks beside the first."""

    def begin(self, done: int, total: int) -> None:
        """See `Display`."""

    def message(self, text: str) -> None:
        """See `Display`."""

    def tick(self, step: int) -> None:
        """See `Display`."""

    def step(self, record: Mapping[str, Any]) -> None:
        """See `Display`."""

    def end(self) -> None:
        """See `Display`."""


class LiveDisplay:
    """A bar with the newest figures and the time left; validation results stay above it."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._progress = Progress(
            MofNCompleteColumn(),
            BarColumn(bar_width=None),
            TextColumn("{task.fields[figures]}"),
            console=console,
            expand=True,
        )
        self._task: TaskID | None = None
        self._total = 0

    def begin(self, done: int, total: int) -> None:
        """See `Display`."""
        self._total = total
        self._task = self._progress.add_task("train", total=total, completed=done, figures="first step …")
        self._progress.start()

    def message(self, text: str) -> None:
        """See `Display`."""
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def tick(self, step: int) -> None:
        """See `Display`."""
        if self._task is not None:
            self._progress.update(self._task, completed=step)

    def step(self, record: Mapping[str, Any]) -> None:
        """See `Display`."""
        if self._task is not None:
            short = describe({k: v for k, v in record.items() if not k.startswith(_LONG_FORM)}, self._total)
            self._progress.update(self._task, completed=record["step"], figures=short)
        if any(key.startswith("val_loss") for key in record):
            self.message(f"step {record['step']:>6}  {describe(record, self._total)}")
        if "sample" in record:
            self.message(quote_sample(record["sample"]))

    def end(self) -> None:
        """See `Display`."""
        self._progress.stop()


_LONG_FORM = ("grad_norm", "val_loss")
_SAMPLE_MARGIN = "     | "
_SAMPLE_COLUMNS = 80 - len(_SAMPLE_MARGIN)


def describe(record: Mapping[str, Any], total_steps: int) -> str:
    """The figures of a journal record that a person watches, in one short line."""
    parts = [f"loss {record['loss']:.3f}"]
    if "val_loss" in record:
        parts.append(f"val {record['val_loss']:.3f}")
    others = {
        key.removeprefix(OTHER_VALIDATION): v for key, v in record.items() if key.startswith(OTHER_VALIDATION)
    }
    parts += [f"{name} {loss:.3f}" for name, loss in others.items()]
    if "grad_norm" in record:
        # null: under fp16 the gradients overflowed, and the step was skipped.
        parts.append("norm inf" if record["grad_norm"] is None else f"norm {record['grad_norm']:.2f}")
    parts.append(f"{format_count(record['tokens_per_second'])} tok/s")
    if record.get("mfu") is not None:
        parts.append(f"mfu {record['mfu']:.0%}")
    left = (total_steps - record["step"]) * record["step_seconds"]
    parts.append(f"eta {format_seconds(left)}")
    return "  ".join(parts)


def quote_sample(text: str) -> str:
    """The first lines of a generated text, marked off at the left and safe to print on a terminal."""
    printable = "".join(c if c.isprintable() or c == "\n" else "�" for c in text)
    words = [line for raw in printable.splitlines() for line in textwrap.wrap(raw, _SAMPLE_COLUMNS)]
    # textwrap counts characters, of which East Asian ones take two columns.
    lines = [part for line in words for part in chop_cells(line, _SAMPLE_COLUMNS)]
    return "\n".join(f"{_SAMPLE_MARGIN}{line}" for line in lines[:6])


def format_seconds(seconds: float) -> str:
    """12s, 3m05s, 2h07m."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02}s"
    return f"{whole // 3600}h{whole % 3600 // 60:02}m"


def format_count(number: float) -> str:
    """950, 1.8k, 67.4M, 1.20B."""
    for limit, divisor, suffix, digits in ((1e9, 1e9, "B", 2), (1e6, 1e6, "M", 1), (1e4, 1e3, "k", 1)):
        if number >= limit:
            return f"{number / divisor:.{digits}f}{suffix}"
    return f"{number:,.0f}"
