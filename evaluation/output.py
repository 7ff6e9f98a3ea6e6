from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table

from parallax.errors import ConfigError
from parallax.runtime.files import explain_disk_full

_WIDEST = 1000
NamedTable = tuple[str, list[str], list[list[str]]]
"""Title, header and rows; the first column names the rows."""


def print_tables(console: Console, tables: Sequence[NamedTable]) -> None:
    """Tables below each other, as wide as they are: a figure is never cut, wherever the lines go."""
    narrow = console.width
    for title, header, rows in tables:
        table = Table(box=None, pad_edge=False)
        for number, column in enumerate(header):
            table.add_column(column, justify="right" if number else "left", no_wrap=True)
        for row in rows:
            table.add_row(*row)
        width = Measurement.get(console, console.options.update(max_width=_WIDEST), table).maximum
        console.print(f"\n{title}", soft_wrap=True)
        # A table is never wider than its console.
        console.width = max(width, narrow)
        console.print(table)
        console.width = narrow


def plain(value: Any) -> Any:
    """Figures as JSON has them: named tuples are objects, arrays are lists, what is not finite is null."""
    if hasattr(value, "_asdict"):
        return plain(value._asdict())
    if isinstance(value, Mapping):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value


def make_output_folder(folder: Path) -> None:
    """Makes the folder that `--output` names, unless it is there.

    Raises:
        ConfigError: the name, or one above it, is a file's, or it may not be made.
        DiskFullError: no room.
    """
    try:
        with explain_disk_full(folder):
            folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"--output {folder}: {error.strerror}; name a folder that can be written") from None
