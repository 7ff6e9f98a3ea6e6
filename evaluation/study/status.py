from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from evaluation.study.plan import PlannedRun
from launch.slurm.progress import read_end
from parallax.errors import RunError
from parallax.metrics.journal import read_journal
from parallax.train.run_folder import RunFolder

START_MARK = "--- "
"""Begins the line of a local run's log that each start begins with."""
_NOT_FINITE = "NaN or infinite"


class Stand(StrEnum):
    """How a run of a study stands."""

    MISSING = "not begun"
    PARTIAL = "begun"
    DONE = "done"
    DIVERGED = "diverged"
    """A loss, gradient or weight became NaN or infinite: another try would do the same."""
    FAILED = "failed"


@dataclass(frozen=True)
class Status:
    """What a run's folder and log say of it."""

    stand: Stand
    step: int = 0
    val_loss: float | None = None
    """At the end of the run."""
    seconds: float = 0.0
    """Spent in steps, over restarts."""
    val_accuracy: float | None = None
    """At the end of the run."""
    error: str | None = None

    @property
    def is_over(self) -> bool:
        """Whether nothing more is to be done for it."""
        return self.stand in (Stand.DONE, Stand.DIVERGED)


def read_status(run: PlannedRun, log: Path | None = None) -> Status:
    """How a run stands, without disturbing it.

    Args:
        run: of the study.
        log: what it printed; None: beside its folder.

    Raises:
        RunError: its journal is damaged.
    """
    folder = RunFolder(run.folder)
    records = read_journal(folder.journal)
    state = folder.read_state()
    error = last_error(log or log_of(run))
    if not records and state is None:
        return Status(Stand.FAILED, error=error) if error else Status(Stand.MISSING)
    last: dict[str, Any] = records[-1] if records else {}
    step, seconds = int(last.get("step", 0)), float(last.get("seconds", 0.0))
    if state == "done":
        if last.get("val_loss") is None:
            raise RunError(
                f"{run.folder} is done and its journal has no final val_loss; remove it, to train again"
            )
        return Status(Stand.DONE, step, float(last["val_loss"]), seconds, val_accuracy=last.get("val_accuracy"))
    if state == "failed":
        diverged = error is not None and _NOT_FINITE in error
        return Status(Stand.DIVERGED if diverged else Stand.FAILED, step, seconds=seconds, error=error)
    return Status(Stand.PARTIAL, step, seconds=seconds, error=error)


def log_of(run: PlannedRun) -> Path:
    """What a local run prints, of all its starts."""
    return run.folder.parent.parent / "logs" / f"{run.folder.name}.log"


def last_error(log: Path) -> str | None:
    """The message that the last start ended with; None: it has none."""
    last = read_end(log).rpartition(f"\n{START_MARK}")[2]
    errors = [line.removeprefix("error: ") for line in last.splitlines() if line.startswith("error: ")]
    return errors[-1] if errors else None
