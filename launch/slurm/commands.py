from collections.abc import Sequence

from launch.parser import Parser
from launch.slurm.compare import compare
from launch.slurm.control import cancel, resume
from launch.slurm.follow import show_log
from launch.slurm.record import DEFAULT_LOGS, Submission, find_submission, shown
from launch.slurm.status import chosen_members, describe_job, describe_status, find_active, read_facts
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
        _logs(submission, member, given.follow)
        return 0
    if given.command == "compare":
        lines = compare(submission)
    else:
        actions = {"status": describe_status, "cancel": cancel, "resume": resume}
        lines = actions[given.command](submission, member)
    for line in lines:
        print(line)
    return 0


def _logs(submission: Submission, member: int | None, follow: bool) -> None:
    if submission.is_sweep and member is None:
        raise RunError(
            f"job {submission.last.id} has {len(submission.members)} members, with a log each; "
            f"name one, for example: {submission.command('logs', f'{submission.last.id}_0')}"
        )
    chosen = chosen_members(submission, member)
    path = submission.log(chosen[0])
    show_log(path, follow=follow, is_over=lambda: not find_active(read_facts(submission, chosen)))
    if not path.exists():
        print(f"slurm    {describe_job(read_facts(submission, chosen).get(chosen[0]))}")
        print(f"logs     {shown(path)} is not there yet")
