import time
from collections.abc import Sequence

from launch.parser import Parser
from launch.slurm.cluster import JobFacts, cancel_job, check_slurm, job_facts, submit_script
from launch.slurm.compare import compare
from launch.slurm.follow import show_log
from launch.slurm.progress import Progress, read_progress
from launch.slurm.record import DEFAULT_LOGS, Submission, SubmittedJob, find_submission, shown
from launch.slurm.submit import with_comparison
from parallax.errors import RunError

COMMANDS = ("status", "logs", "cancel", "resume", "compare")
"""What can be asked about a job that was submitted."""


def look_after(arguments: Sequence[str]) -> int:
    """`python -m launch status|logs|cancel|resume|compare JOB|RUN`; returns the exit code."""
    parser = Parser(prog="python -m launch", description="Look after a job that was submitted.")
    parser.add_argument("command", choices=COMMANDS)
    parser.add_argument("job", metavar="JOB|RUN", help="a job's number, JOB_MEMBER of a sweep, or a run folder")
    parser.add_argument("-f", "--follow", action="store_true", help="logs: go on until the job has ended")
    parser.add_argument("--logs", default=DEFAULT_LOGS, metavar="FOLDER", help="where the jobs have their folders")
    given = parser.parse_intermixed_args(arguments)
    submission, member = find_submission(given.job, given.logs)
    if given.command == "logs":
        return _logs(submission, member, given.follow)
    if given.command == "compare":
        lines = compare(submission)
    elif given.command == "status":
        lines = _status(submission, member)
    elif given.command == "cancel":
        lines = _cancel(submission, member)
    else:
        lines = _resume(submission, member)
    for line in lines:
        print(line)
    return 0


def _chosen(submission: Submission, member: int | None) -> list[int]:
    return [member] if member is not None else list(range(len(submission.runs)))


def _facts(submission: Submission, member: int) -> JobFacts | None:
    """What Slurm says of a run's newest job; None: it has forgotten it."""
    found = job_facts(submission.job_of(member).id)
    if not submission.is_sweep:
        return found[0] if found else None
    return next((facts for facts in found if member in facts.tasks), None)


def _status(submission: Submission, member: int | None) -> list[str]:
    lines = [f"job      {submission.last.id} {submission.name}, submitted {submission.last.time}"]
    for number in _chosen(submission, member):
        facts, progress = _facts(submission, number), read_progress(submission, number)
        label = f"member {number}: " if submission.is_sweep else ""
        lines += [
            f"slurm    {label}{_describe_job(facts)}",
            f"run      {label}{_describe_run(submission, number)}",
        ]
        if progress.error and (facts is None or facts.is_over):
            lines.append(f"error    {label}{progress.error}")
        lines.append(f"logs     {shown(submission.log(number))}")
    return [*lines, f"next     {_advice(submission, member)}"]


def _describe_job(facts: JobFacts | None) -> str:
    if facts is None:
        return "forgotten (it ended a while ago), or not there"
    where = f" on {facts.nodes}" if facts.nodes else ""
    why = f" ({facts.reason})" if facts.reason not in ("", "None") else ""
    again = f", {facts.restarts} restart(s)" if facts.restarts else ""
    return f"{facts.state}{why}{where}{again}, {facts.run_time} of {facts.time_limit}"


def _describe_run(submission: Submission, member: int) -> str:
    progress: Progress = read_progress(submission, member)
    loss = f", loss {progress.loss:.4f}" if progress.loss is not None else ""
    best = f", best validation loss {progress.best_loss:.4f}" if progress.best_loss is not None else ""
    return f"{submission.runs[member]}: {progress.state}, step {progress.step}{loss}{best}"


def _advice(submission: Submission, member: int | None) -> str:
    job = submission.last.id if member is None else f"{submission.job_of(member).id}_{member}"
    active = _active(submission, member)
    if active:
        first = f"{submission.job_of(active[0]).id}_{active[0]}" if submission.is_sweep else job
        return f"{submission.command('logs', first, ' -f')}, or {submission.command('cancel', job)}"
    if all(read_progress(submission, number).state == "done" for number in _chosen(submission, member)):
        return "nothing: it is done" + (f"; {submission.command('compare', job)}" if submission.is_sweep else "")
    return submission.command("resume", job)


def _active(submission: Submission, member: int | None) -> list[int]:
    """The runs whose job waits or runs; those that run first."""
    found = [(number, _facts(submission, number)) for number in _chosen(submission, member)]
    alive = [(number, facts) for number, facts in found if facts is not None and not facts.is_over]
    return [number for number, facts in sorted(alive, key=lambda entry: entry[1].state != "RUNNING")]


def _logs(submission: Submission, member: int | None, follow: bool) -> int:
    if submission.is_sweep and member is None:
        raise RunError(
            f"job {submission.last.id} has {len(submission.members)} members, with a log each; "
            f"name one, for example: {submission.command('logs', f'{submission.last.id}_0')}"
        )
    number = member or 0
    path = submission.log(number)
    show_log(path, follow=follow, is_over=lambda: not _active(submission, member))
    if not path.exists():
        print(f"slurm    {_describe_job(_facts(submission, number))}")
        print(f"logs     {shown(path)} is not there yet")
    return 0


def _cancel(submission: Submission, member: int | None) -> list[str]:
    check_slurm()
    if not _active(submission, member):
        raise RunError(f"job {submission.last.id} has ended; {_advice(submission, member)}")
    job = submission.last.id if member is None else f"{submission.job_of(member).id}_{member}"
    cancel_job(job)
    return [
        f"job      {job} is cancelled; its ranks save and leave",
        f"next     {submission.command('resume', job)}",
    ]


def _resume(submission: Submission, member: int | None) -> list[str]:
    """The same rendered script again, for the same run folders: of a sweep, those that are not done."""
    check_slurm()
    active = _active(submission, member)
    if active:
        job = submission.job_of(active[0])
        raise RunError(f"job {job.id} still waits or runs; first: {submission.command('cancel', job.id)}")
    chosen = _chosen(submission, member)
    left = [number for number in chosen if read_progress(submission, number).state != "done"]
    if not left:
        raise RunError(f"{submission.runs[chosen[0]]} is done; to go on, submit it anew with more train.max_steps")
    options = []
    if submission.is_sweep:
        limit = f"%{submission.at_once}" if submission.at_once else ""
        options = [f"--array={','.join(map(str, left))}{limit}"]
    # What it once had to wait for is over, and perhaps forgotten.
    options.append("--dependency=")
    number = submit_script(f"{submission.folder}/job.sbatch", *submission.arguments, options=options)
    members = tuple(left) if submission.is_sweep else ()
    submission = submission.with_job(SubmittedJob(number, time.strftime("%Y-%m-%dT%H:%M:%S%z"), members))
    if submission.is_sweep:
        submission = with_comparison(submission)
    runs = ", ".join(submission.runs[number] for number in left[:4]) + (" …" if len(left) > 4 else "")
    word = f"{number}_{left[0]}" if submission.is_sweep else number
    return [
        f"job      {number}",
        f"run      {runs}",
        f"logs     {shown(submission.log(left[0]))}",
        f"next     {submission.command('logs', word, ' -f')}",
    ]
