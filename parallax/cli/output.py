import json
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Table


class Advance(Protocol):
    """Tells a bar how much of how much is done; in all 0: not known."""

    def __call__(self, done: int, total: int, label: str | None = None) -> None:
        """Moves the bar, and names it anew where a label is given."""
        ...


def print_json(value: Mapping[str, Any]) -> None:
    """One JSON object on stdout, and nothing else; an infinite perplexity, which JSON cannot hold, is null."""
    print(json.dumps(_finite(value), ensure_ascii=False, allow_nan=False, default=str))


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def print_table(title: str, columns: list[str], rows: list[list[str]]) -> None:
    """A plain table on stdout; the first column is left-aligned, numbers to the right."""
    table = Table(title=title or None, title_justify="left", box=None, pad_edge=False)
    for index, column in enumerate(columns):
        table.add_column(column, justify="left" if index == 0 else "right", no_wrap=index > 0)
    for row in rows:
        table.add_row(*row)
    Console(highlight=False, markup=False).print(table)


@contextmanager
def progress_bar(label: str) -> Iterator[Advance]:
    """A bar with the time left, on stderr; invisible where that is not a terminal."""
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=None),
        TaskProgressColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal, expand=True) as bar:
        task = bar.add_task(label, total=None)

        def advance(done: int, total: int, label: str | None = None) -> None:
            if total == 0 and bar.tasks[0].total is not None:
                bar.reset(task, total=None)
            bar.update(task, completed=done, total=total or None, description=label)

        yield advance
