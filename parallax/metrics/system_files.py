import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from parallax.metrics.journal import Record, parse_line

SYSTEM_FOLDER = "system"
"""In a run folder: a file NODE.jsonl for every node."""

Warn = Callable[[str], None]


@dataclass
class _Place:
    """How far a file has been read."""

    offset: int = 0
    lines: int = 0


def node_file(run: Path, node: str) -> Path:
    """The file of a node's samples; other characters than MLflow takes in a name become `_`."""
    return run / SYSTEM_FOLDER / f"{_plain(node)}.jsonl"


def next_sample(path: Path) -> int:
    """The number of the sample that a file has not yet: one more than its last sound line's, or 0."""
    if not path.exists():
        return 0
    for line in reversed(path.read_bytes().split(b"\n")):
        record = parse_line(line)
        if record is not None:
            return int(record["step"]) + 1
    return 0


class SystemFiles:
    """Reads what the nodes of a run have sampled, as lines for the trackers.

    A damaged line is left out with a warning: it costs one point of a curve that nothing depends on.

    Args:
        run: the run folder.
        warn: takes one line of text.
    """

    def __init__(self, run: Path, warn: Warn) -> None:
        self._folder = run / SYSTEM_FOLDER
        self._warn = warn
        self._places: dict[Path, _Place] = {}

    def new_records(self) -> list[Record]:
        """The whole lines that came since the last call, by node and in order.

        Their values are named `system/NODE/NAME`, as MLflow names those of several nodes; `step` numbers the
        samples of a node.
        """
        records: list[Record] = []
        for path in sorted(self._folder.glob("*.jsonl")):
            try:
                records += self._read(path, self._places.setdefault(path, _Place()))
            except OSError as error:
                self._warn(f"{path}: {error.strerror}; its samples are left out until it can be read")
        return records

    def _read(self, path: Path, place: _Place) -> list[Record]:
        with path.open("rb") as file:
            file.seek(place.offset)
            *lines, unfinished = file.read().split(b"\n")
            place.offset = file.tell() - len(unfinished)
        parsed = [(number, line, _sample(line)) for number, line in enumerate(lines, place.lines + 1)]
        place.lines += len(lines)
        damaged = [(number, line) for number, line, record in parsed if record is None]
        if damaged:
            number, line = damaged[0]
            more = f" (and {len(damaged) - 1} more)" if len(damaged) > 1 else ""
            shown = line[:60].decode("utf-8", errors="replace")
            self._warn(f"{path}: line {number} is damaged: found {shown!r}{more}; skipped")
        return [_named(record, path.stem) for _, _, record in parsed if record is not None]


def _sample(line: bytes) -> Record | None:
    record = parse_line(line)
    return record if record is not None and isinstance(record.get("time"), int | float) else None


def _named(record: Record, node: str) -> Record:
    kept = {"step", "time"}
    prefix = f"{SYSTEM_FOLDER}/{_plain(node)}"
    return {key if key in kept else f"{prefix}/{key}": value for key, value in record.items()}


def _plain(node: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]", "_", node)
