import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from launch.slurm.job import Job, site_lines
from launch.slurm.progress import Progress, read_progress
from launch.slurm.record import Submission
from launch.slurm.sweep import OWN
from parallax.errors import RunError

_SCRIPT = "compare.sbatch"


def write_comparison_job(job: Job) -> None:
    """The batch script that compares the members of a sweep, beside the sweep's own."""
    options = [f"--job-name={job.name}-compare", *job.queue_options, "--ntasks=1", "--time=00:10:00"]
    options += [f"--chdir={job.directory}", f"--output={job.folder}/compare-%j.out"]
    prefix = f"{job.container} " if job.container else ""
    lines = [
        "#!/usr/bin/env bash",
        "# Compares the members of a sweep once all of them have ended; it loads no torch.",
        *(f"#SBATCH {option}" for option in options),
        *site_lines(job)[:-1],
        f'{prefix}"$PARALLAX_PYTHON" -m launch compare "{job.folder}"',
    ]
    if job.then is not None:
        lines.append(f'{prefix}"$PARALLAX_PYTHON" -m {job.then}')
    (job.folder / _SCRIPT).write_text("\n".join(lines) + "\n", encoding="utf-8")


def compare(submission: Submission) -> list[str]:
    """Tables what became of the members of a sweep; also into comparison.txt and .json of its folder.

    Raises:
        RunError: it is no sweep, or the folder cannot be written to.
    """
    if not submission.is_sweep:
        raise RunError(f"job {submission.last.id} is one run, not a sweep; see: python -m launch status")
    found = [read_progress(submission, number) for number in range(len(submission.members))]
    lines = [*_table(submission.members, found), "", *_summary(submission, found)]
    rows = [_as_json(submission, number, progress) for number, progress in enumerate(found)]
    folder = Path(submission.folder)
    try:
        (folder / "comparison.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
        (folder / "comparison.json").write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        raise RunError(f"{folder} cannot be written to ({error.strerror})") from None
    return lines


def _settings(member: Sequence[str]) -> Mapping[str, str]:
    return dict(text.partition("=")[::2] for text in member)


def _table(members: Sequence[Sequence[str]], found: Sequence[Progress]) -> list[str]:
    keys = list(dict.fromkeys(key for member in members for key in _settings(member) if key not in OWN))
    rows = [["member", *keys, "state", "steps", "final val loss", "best val loss"]]
    for number, (member, progress) in enumerate(zip(members, found, strict=True)):
        values = [_settings(member).get(key, "-") for key in keys]
        losses = [_number(progress.final_loss), _number(progress.best_loss)]
        rows.append([str(number), *values, progress.state, str(progress.step), *losses])
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _shown(member: Sequence[str]) -> str:
    return " ".join(text for text in member if text.partition("=")[0] not in OWN)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _summary(submission: Submission, found: Sequence[Progress]) -> list[str]:
    lines = []
    measured = [(progress.best_loss, n) for n, progress in enumerate(found) if progress.best_loss is not None]
    if measured:
        loss, number = min(measured)
        lines.append(f"best     member {number} ({_shown(submission.members[number])}): {loss:.4f}")
    for number, progress in enumerate(found):
        if progress.state != "done":
            why = f": {progress.error}" if progress.error else ""
            lines.append(f"{progress.state:<8} member {number} ({_shown(submission.members[number])}){why}")
            lines.append(f"         log {submission.log(number)}")
    return lines


def _as_json(submission: Submission, number: int, progress: Progress) -> dict[str, Any]:
    return {
        "member": number,
        "settings": _settings(submission.members[number]),
        "run": submission.runs[number],
        "state": progress.state,
        "steps": progress.step,
        "final_val_loss": progress.final_loss,
        "best_val_loss": progress.best_loss,
        "error": progress.error,
    }
