import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from launch.slurm.record import Submission

_TAIL_BYTES = 65_536


@dataclass(frozen=True)
class Progress:
    """What a run's own folder says of it, whoever remembers its job."""

    state: str
    """running, stopped, lost, failed or done, as the run wrote it last; none: it has not begun."""
    attempt: str
    """JOB.RESTART of who wrote it; empty: nobody."""
    step: int
    loss: float | None
    """Of the last step that was logged."""
    final_loss: float | None
    """The last validation loss."""
    best_loss: float | None
    error: str | None
    """The first error in the job's log, for a run that is not done."""


def read_progress(submission: Submission, member: int = 0) -> Progress:
    """Reads state and journal of a run, and its log where that has to say what went wrong."""
    run = submission.run(member)
    state, _, attempt = _text(run / "state").strip().partition(" ")
    records = _records(run / "journal.jsonl")
    validated = [r["val_loss"] for r in records if isinstance(r.get("val_loss"), int | float)]
    last = records[-1] if records else {}
    begun = "running" if records else "none"
    known = state or begun
    return Progress(
        state=known,
        attempt=attempt,
        step=int(last.get("step", 0)),
        loss=last.get("loss"),
        final_loss=validated[-1] if validated else None,
        best_loss=min(validated, default=None),
        error=None if known == "done" else _first_error(submission.log(member)),
    )


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _records(path: Path) -> list[dict[str, Any]]:
    records = []
    for line in _text(path).splitlines():
        try:
            records.append(json.loads(line))
        except ValueError:
            continue  # the line that is being written
    return records


def read_end(log: Path) -> str:
    """The last 64 KiB of a log; empty: there is none."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - _TAIL_BYTES))
            return file.read().decode(errors="replace")
    except OSError:
        return ""


def _first_error(log: Path) -> str | None:
    lines = read_end(log).splitlines()
    return next((line.partition("error: ")[2] for line in lines if line.startswith("error: ")), None)
