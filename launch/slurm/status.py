from collections.abc import Iterable, Sequence

from launch.slurm.cluster import JobFacts, job_facts
from launch.slurm.progress import Progress, read_progress
from launch.slurm.record import Submission, shown

_FORGOTTEN = "forgotten"


def read_facts(submission: Submission, members: Iterable[int]) -> dict[int, JobFacts]:
    """What Slurm says of the newest job of each run; those that it has forgotten are left out."""
    jobs: dict[str, list[JobFacts]] = {}
    found: dict[int, JobFacts] = {}
    for member in members:
        job = submission.job_of(member).id
        if job not in jobs:
            jobs[job] = job_facts(job)
        fitting = [facts for facts in jobs[job] if not submission.is_sweep or member in facts.tasks]
        if fitting:
            found[member] = fitting[0]
    return found


def find_active(facts: dict[int, JobFacts]) -> list[int]:
    """The runs whose job waits or runs, those that run first."""
    alive = [member for member, said in facts.items() if not said.is_over]
    return sorted(alive, key=lambda member: facts[member].state != "RUNNING")


def chosen_members(submission: Submission, member: int | None) -> list[int]:
    """The runs that a person means: one member, or all of them."""
    return [member] if member is not None else list(range(len(submission.runs)))


def job_word(submission: Submission, member: int | None) -> str:
    """The newest job as Slurm names it: JOB, or JOB_MEMBER."""
    return submission.last.id if member is None else f"{submission.job_of(member).id}_{member}"


def describe_status(submission: Submission, member: int | None) -> list[str]:
    """How a job and its runs stand: what Slurm says, what the run folders say, and what to type next."""
    chosen = chosen_members(submission, member)
    facts = read_facts(submission, chosen)
    progress = {number: read_progress(submission, number) for number in chosen}
    lines = [f"job      {job_word(submission, member)} {submission.name}, submitted {submission.last.time}"]
    if len(chosen) == 1:
        number = chosen[0]
        lines += [
            f"slurm    {describe_job(facts.get(number))}",
            f"run      {submission.runs[number]}: {_describe_run(progress[number])}",
        ]
        lines.append(f"logs     {shown(submission.log(number))}")
    else:
        for number in chosen:
            said = facts[number].state if number in facts else _FORGOTTEN
            lines.append(f"member   {number:>4}  {said:<10} {_describe_run(progress[number])}")
        lines.append(
            f"logs     {shown(submission.log().with_name(f'{submission.name}-{submission.last.id}_N.out'))}"
        )
    active = find_active(facts)
    over = set(chosen) - set(active)
    for number in sorted(over):
        if progress[number].error:
            lines.append(f"error    {number if submission.is_sweep else ''} {progress[number].error}".rstrip())
    done = all(found.state == "done" for found in progress.values())
    is_held = bool(active) and facts[active[0]].is_held
    return [*lines, f"next     {advise(submission, member, [] if is_held else active, done)}"]


def describe_job(facts: JobFacts | None) -> str:
    """What Slurm says, for a person."""
    if facts is None:
        return f"{_FORGOTTEN}: it ended a while ago, or Slurm is not here"
    where = f" on {facts.nodes}" if facts.nodes else ""
    why = f" ({facts.reason})" if facts.reason not in ("", "None") else ""
    again = f", {facts.restarts} restart(s)" if facts.restarts else ""
    return f"{facts.state}{why}{where}{again}, {facts.run_time} of {facts.time_limit}"


def _describe_run(progress: Progress) -> str:
    loss = f", loss {progress.loss:.4f}" if progress.loss is not None else ""
    best = f", best validation loss {progress.best_loss:.4f}" if progress.best_loss is not None else ""
    begun = "not begun" if progress.state == "none" else f"{progress.state}, step {progress.step}"
    return f"{begun}{loss}{best}"


def advise(submission: Submission, member: int | None, active: Sequence[int], done: bool) -> str:
    """What to type next.

    Args:
        submission: that a person asked about.
        member: of its sweep; None: all of it.
        active: what of that waits or runs, in the order of `find_active`.
        done: whether all of that has reached its end.
    """
    word = job_word(submission, member)
    if active:
        first = job_word(submission, active[0] if submission.is_sweep else None)
        return f"{submission.command('logs', first, ' -f')}, or {submission.command('cancel', word)}"
    if done:
        return "nothing: it is done" + (f"; {submission.command('compare', word)}" if submission.is_sweep else "")
    return submission.command("resume", word)
