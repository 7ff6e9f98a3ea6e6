import csv
import io
import os
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from evaluation.attention_bench.rows import Row
from parallax.errors import ConfigError
from parallax.runtime.files import explain_disk_full

_COLUMNS = [field.name for field in fields(Row)]
_ADAPTER = TypeAdapter(Row)


class CsvFile:
    """Rows on the disk, appended and synced as they are measured: a command that ends early can be resumed.

    Args:
        path: of the file; its folder is made.
        resume: whether the file may be there; what a crash has left of a last line is cut off.

    Raises:
        ConfigError: the file is there and was not to be resumed, is no table of this benchmark, or may not be
            written.
    """

    def __init__(self, path: Path, resume: bool) -> None:
        self._path = path
        self.rows: list[Row] = []
        """Those that were there."""
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            there = path.exists() and path.stat().st_size > 0
            if there and not resume:
                raise ConfigError(f"--csv {path} is there already; --resume goes on with it, or name another file")
            if there:
                self.rows = self._read_whole_lines()
            else:
                self._append_text(_as_csv([_COLUMNS]))
        except OSError as error:
            raise ConfigError(f"--csv {path}: {error.strerror}; name a file that can be written") from None

    def append(self, rows: Sequence[Row]) -> None:
        """Writes rows; when it returns, they are on the disk.

        Raises:
            DiskFullError: no room.
        """
        self._append_text(_as_csv([[_cell(value) for value in asdict(row).values()] for row in rows]))

    def _append_text(self, text: str) -> None:
        with explain_disk_full(self._path), self._path.open("a", encoding="utf-8", newline="") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())

    def _read_whole_lines(self) -> list[Row]:
        content = self._path.read_bytes()
        whole = content[: content.rfind(b"\n") + 1]
        if len(whole) < len(content):
            os.truncate(self._path, len(whole))
        try:
            lines = list(csv.reader(io.StringIO(whole.decode("utf-8"), newline="")))
            if not lines or lines[0] != _COLUMNS:
                raise ValueError
            return [_row(line) for line in lines[1:]]
        except (ValueError, ValidationError, csv.Error):
            raise ConfigError(f"--csv {self._path} is no table of this benchmark; name another file") from None


def _as_csv(lines: Sequence[Sequence[str]]) -> str:
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows(lines)
    return text.getvalue()


def _cell(value: object) -> str:
    return "" if value is None else str(value)


def _row(line: Sequence[str]) -> Row:
    given = dict(zip(_COLUMNS, line, strict=True))
    # What is empty has its default, except for the one text without one.
    return _ADAPTER.validate_python({k: v for k, v in given.items() if v or k == "cache"})
