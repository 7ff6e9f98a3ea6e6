import json
import math
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from parallax.errors import RunError
from parallax.runtime.files import explain_disk_full, sync_path, write_text_atomic

Record = dict[str, Any]
"""One line: `step` (an int) and what was measured at it, as JSON scalars. null: not a finite number."""

OTHER_VALIDATION = "val_loss_on/"
"""Begins the names of validation losses on other corpora than the main one, whose own is `val_loss`."""


class Journal:
    """The truth of a run: a JSON-lines file of what was measured, one line per logged step.

    A training line holds at least `step`, `tokens`, `flops`, `seconds` (all counted from the start of the run,
    over restarts), `loss`, `lr`, `grad_norm`, and `val_loss` where it was measured.

    Opening a file whose last line was torn by a crash cuts that line off, so that the next one starts clean.

    Args:
        path: the file; made when missing.
        fence: called before the file is opened and before each line, which it forbids by raising; see
            `RunLock.check`.
    """

    def __init__(self, path: Path, fence: Callable[[], None] = lambda: None) -> None:
        self.path = path
        self._fence = fence
        fence()
        with explain_disk_full(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.exists():
                _mend_last_line(path)
            self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
            # A power failure takes a new file's name with it unless its folder is synced as well.
            sync_path(path.parent)

    def append(self, record: Mapping[str, Any]) -> Record:
        """Writes one line and waits until it is on the disk (about 0.2 ms on an SSD).

        Args:
            record: JSON scalars by name, with an integer `step`. NaN and infinities, which JSON cannot hold,
                become null.

        Returns:
            The line as written: `record` plus `time`, the wall clock in seconds since 1970.

        Raises:
            DiskFullError: the line did not fit; the file is as it was before the call.
            FencedError: the run belongs to another process by now.
        """
        line = {"step": _step_of(record), "time": round(time.time(), 3)} | _finite(record)
        text = json.dumps(line, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        self._fence()
        with explain_disk_full(self.path):
            self._write(text.encode() + b"\n")
        return line

    def _write(self, data: bytes) -> None:
        size = os.fstat(self._descriptor).st_size
        try:
            written = os.write(self._descriptor, data)
            # A nearly full disk takes a part; asking for the rest makes it say why it took no more.
            while written < len(data):
                written += os.write(self._descriptor, data[written:])
            os.fsync(self._descriptor)
        except OSError:
            os.ftruncate(self._descriptor, size)
            raise

    def truncate_after(self, step: int) -> None:
        """Drops the lines of steps after `step`, for a run that goes on from a checkpoint taken at `step`.

        The shortened file is written beside and moved into place: a crash leaves the old one or the new one. So
        is one that loses nothing: what a process left over from before the run was claimed may still write
        through its descriptor then goes to the old file, which has no name any more.

        Raises:
            DiskFullError: no room for the shortened file; the old one is untouched.
            RunError: a line in the middle of the journal is damaged.
        """
        lines = _read_lines(self.path)
        kept = [text for text, record in lines if record["step"] <= step]
        write_text_atomic(self.path, "".join(f"{text}\n" for text in kept))
        os.close(self._descriptor)
        self._descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND)

    def close(self) -> None:
        """Closes the file; every line is on the disk already."""
        os.close(self._descriptor)


def read_journal(path: Path) -> list[Record]:
    """All lines of a journal, oldest first; a missing file is an empty journal.

    A last line that a crash tore, or that is being written this moment, is left out.

    Raises:
        RunError: a line before the last is not a JSON object with a step; the message names it.
    """
    return [record for _, record in _read_lines(path)]


def _read_lines(path: Path) -> list[tuple[str, Record]]:
    if not path.exists():
        return []
    *lines, tail = path.read_bytes().split(b"\n")
    found = []
    for number, line in enumerate(lines, start=1):
        record = parse_line(line)
        if record is None:
            shown = line[:60].decode("utf-8", errors="replace")
            raise RunError(
                f"{path}: line {number} is damaged: expected a JSON object with a step, found {shown!r}; "
                f"repair or delete that line"
            )
        found.append((line.decode(), record))
    record = parse_line(tail)
    return found if record is None else [*found, (tail.decode(), record)]


def parse_line(line: bytes) -> Record | None:
    """A line without its end; None: it is not a JSON object with a step."""
    try:
        record = json.loads(line)
    except ValueError:
        return None
    return record if isinstance(record, dict) and type(record.get("step")) is int else None


def _step_of(record: Mapping[str, Any]) -> int:
    step = record.get("step")
    if type(step) is not int:
        raise TypeError(f"step={step!r}: a journal line needs an int")
    return step


def _finite(record: Mapping[str, Any]) -> Record:
    return {
        key: None if isinstance(value, float) and not math.isfinite(value) else value
        for key, value in record.items()
    }


def _mend_last_line(path: Path) -> None:
    """Cuts a torn last line, or ends one that only lacks its line end (as some editors leave it)."""
    with path.open("rb+") as file:
        data = file.read()
        end = data.rfind(b"\n") + 1
        if end == len(data):
            return
        if parse_line(data[end:]) is None:
            file.truncate(end)
        else:
            file.write(b"\n")
        file.flush()
        os.fsync(file.fileno())
