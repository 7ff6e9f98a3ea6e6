import shlex
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from evaluation.study.plan import PlannedRun
from evaluation.study.status import Stand, Status, read_status
from launch.__main__ import parse
from launch.slurm.record import Submission, read_submissions
from launch.slurm.status import find_active, read_facts
from launch.slurm.submit import launch_by_slurm
from parallax.errors import ConfigError, RunError

FROM_JOB = "--from-job"
"""Given by the job that goes on once an array has ended: it submits nothing a second time."""


@dataclass(frozen=True)
class SlurmStage:
    """Trains the runs of one stage as an array of `python -m launch … --via slurm`.

    Nothing here waits: what is submitted is left to Slurm, whose last job runs the study's command again, which
    then finds the runs done and begins the next stage.

    Args:
        name: of the study.
        folder: of the study; jobs have theirs in `slurm/` below it.
        options: of `python -m launch --via slurm`, such as --time and --partition.
        command: module and arguments that go on with the study.
        from_job: whether that job is who asks.
    """

    name: str
    folder: Path
    options: tuple[str, ...]
    command: tuple[str, ...]
    from_job: bool = False

    @property
    def logs(self) -> Path:
        """Where each job has a folder."""
        return self.folder / "slurm"

    def run(self, stage: str, runs: Sequence[PlannedRun]) -> dict[PlannedRun, Status] | None:
        """How the runs stand if all are over; otherwise submits those that no job works on, and returns None.

        Raises:
            RunError: asked by the job that goes on, and there are runs that their array has left unfinished.
        """
        found = {run: self.status(run) for run in runs}
        left = [run for run, status in found.items() if not status.is_over]
        if not left:
            return found
        active = set(self._active_folders())
        waiting = [run for run in left if str(run.folder) in active]
        if waiting:
            print(f"waits    {len(waiting)} of {len(runs)} runs of the {stage} stage are with Slurm")
            print(f"next     python -m launch status {self._newest()} --logs {self.logs}")
            return None
        before = [run for run in left if found[run].stand is not Stand.MISSING]
        if before and self.from_job:
            why = found[before[0]].error or found[before[0]].stand
            raise RunError(
                f"{len(left)} of {len(runs)} runs of the {stage} stage have not reached their end; "
                f"{before[0].folder.name}: {why}; the study's own command submits them again"
            )
        self.submit(stage, left, dry_run=False)
        return None

    def submit(self, stage: str, runs: Sequence[PlannedRun], *, dry_run: bool) -> None:
        """One array over the runs, and behind it the job that goes on; `dry_run`: shown and no more.

        Raises:
            ParallaxError: Slurm is not here or would refuse it.
        """
        with tempfile.TemporaryDirectory() as scratch:
            members = Path(scratch) / "members"  # the submission keeps a copy
            members.write_text("".join(shlex.join(run.overrides) + "\n" for run in runs), encoding="utf-8")
            self._launch(stage, runs[0].base, members, dry_run)

    def _launch(self, stage: str, base: Path, members: Path, dry_run: bool) -> None:
        words = [str(base), f"run.name={self.name}-{stage}", "--via", "slurm", *self.options]
        words += ["--members", str(members), "--logs", str(self.logs), "--then", shlex.join(self.command)]
        launch_by_slurm(parse([*words, "--dry-run"] if dry_run else words))

    def status(self, run: PlannedRun) -> Status:
        """How a run stands, with the error that its job's log has."""
        for submission, member in self._members():
            if submission.runs[member] == str(run.folder):
                return read_status(run, submission.log(member))
        return read_status(run)

    def _members(self) -> Iterator[tuple[Submission, int]]:
        for submission in read_submissions(str(self.logs)):
            for member in range(len(submission.runs)):
                yield submission, member

    def _active_folders(self) -> Iterator[str]:
        for submission in read_submissions(str(self.logs)):
            active = find_active(read_facts(submission, range(len(submission.runs))))
            yield from (submission.runs[member] for member in active)

    def _newest(self) -> str:
        return next(read_submissions(str(self.logs))).last.id


def check_options(options: Sequence[str]) -> tuple[str, ...]:
    """What stands behind `--` on the command line, for `python -m launch --via slurm`.

    Raises:
        ConfigError: an option that the study gives itself, or one that does not exist.
    """
    given = parse(["study.yaml", *options])
    for name in ("sweep", "members", "then", "logs"):
        if getattr(given, name) is not None:
            raise ConfigError(f"--{name} is set by the study itself; take it out")
    if given.overrides:
        raise ConfigError(f"{given.overrides[0]} behind --: only options of Slurm stand there; use the study file")
    return tuple(options)
