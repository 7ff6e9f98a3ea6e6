import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from parallax.errors import RunError

RECORD = "submission.json"
DEFAULT_LOGS = "runs/slurm"


@dataclass(frozen=True)
class SubmittedJob:
    """One job of a submission: the first, or one that resumed it."""

    id: str
    time: str
    members: tuple[int, ...] = ()
    """Of a sweep: those that it runs."""
    comparison: str | None = None
    """The job that compares them afterwards."""


@dataclass(frozen=True)
class Submission:
    """What is kept beside a rendered job: enough to look after it when Slurm has forgotten it."""

    name: str
    """Of the job."""
    folder: str
    directory: str
    """Where it starts; run folders are relative to it."""
    arguments: tuple[str, ...]
    """Of the batch script."""
    runs: tuple[str, ...]
    """Run folders: one, or one for each member."""
    members: tuple[tuple[str, ...], ...] = ()
    """Of a sweep: what differs."""
    at_once: int | None = None
    jobs: tuple[SubmittedJob, ...] = field(default=())

    @property
    def is_sweep(self) -> bool:
        """Whether it is an array."""
        return bool(self.members)

    @property
    def last(self) -> SubmittedJob:
        """The newest job."""
        return self.jobs[-1]

    def run(self, member: int = 0) -> Path:
        """The run folder."""
        return Path(self.directory) / self.runs[member]

    def job_of(self, member: int) -> SubmittedJob:
        """The newest job that runs it."""
        return next((job for job in reversed(self.jobs) if not self.is_sweep or member in job.members), self.last)

    def log(self, member: int = 0) -> Path:
        """Where the newest job writes."""
        tail = f"_{member}" if self.is_sweep else ""
        return Path(self.folder) / f"{self.name}-{self.job_of(member).id}{tail}.out"

    def command(self, verb: str, job: str, more: str = "") -> str:
        """What to type, for a person."""
        parent = Path(self.folder).parent
        logs = "" if parent == Path(DEFAULT_LOGS).absolute() else f" --logs {shown(parent)}"
        return f"python -m launch {verb} {job}{more}{logs}"

    def with_job(self, job: SubmittedJob) -> "Submission":
        """The same with one job more, written down."""
        more = replace(self, jobs=(*self.jobs, job))
        more.save()
        return more

    def save(self) -> None:
        """Writes the record, beside first."""
        path = Path(self.folder) / RECORD
        staging = path.with_name(f".{RECORD}.new")
        staging.write_text(json.dumps(asdict(self), indent=1) + "\n", encoding="utf-8")
        staging.replace(path)


def shown(path: Path) -> str:
    """A path for a person: relative where it lies below the current folder."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def read_record(path: Path) -> Submission:
    """The record of a submission.

    Raises:
        RunError: it is damaged.
    """
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        jobs = tuple(SubmittedJob(**job | {"members": tuple(job["members"])}) for job in raw.pop("jobs"))
        members = tuple(tuple(member) for member in raw.pop("members"))
        runs, arguments = tuple(raw.pop("runs")), tuple(raw.pop("arguments"))
        # The folder may have been moved since.
        raw["folder"] = str(path.parent.absolute())
        return Submission(**raw, jobs=jobs, members=members, runs=runs, arguments=arguments)
    except (ValueError, KeyError, TypeError) as error:
        raise RunError(f"{path} is not a record of a submission: {error}") from None


def find_submission(word: str, logs: str) -> tuple[Submission, int | None]:
    """The newest submission that a person means, and the member of its sweep, if one is named.

    Args:
        word: a job's number, JOB_MEMBER, a run folder or its name, or the submission's own folder or its name.
        logs: the folder of all submissions.

    Raises:
        RunError: there is none.
    """
    # A folder may be named by its path wherever it lies.
    direct = [Path(word)] if (Path(word) / RECORD).exists() else []
    submissions = [read_record(path / RECORD) for path in direct] or list(read_submissions(logs))
    number, _, member = word.partition("_")
    for submission in submissions:
        if word in (Path(submission.folder).name, submission.folder) or direct:
            return submission, None
        for job in submission.jobs:
            if number in (job.id, job.comparison) and (member.isdecimal() or not member):
                return submission, _member(submission, word, member)
    for submission in submissions:
        for place in range(len(submission.runs)):
            folder = submission.run(place)
            if word == submission.runs[place] or Path(word).absolute() == folder.absolute() or word == folder.name:
                return submission, place if submission.is_sweep else None
    known = ", ".join(s.last.id for s in submissions[:8]) or "none"
    raise RunError(f"{word}: no job or run that was submitted into {logs} (--logs names another); jobs: {known}")


def read_submissions(logs: str) -> Iterator[Submission]:
    """All of them that have a job, the newest first."""
    paths = sorted(Path(logs).glob(f"*/{RECORD}"), key=lambda path: path.stat().st_mtime, reverse=True)
    return (record for record in map(read_record, paths) if record.jobs)


def _member(submission: Submission, word: str, member: str) -> int | None:
    if not member:
        return None
    if int(member) >= len(submission.members):
        raise RunError(f"{word}: the job has {len(submission.members)} members, from 0")
    return int(member)
