import time

from launch.slurm.cluster import cancel_job, check_slurm, release_job, submit_script
from launch.slurm.progress import read_progress
from launch.slurm.record import Submission, SubmittedJob, shown
from launch.slurm.status import advise, chosen_members, find_active, job_word, read_facts
from launch.slurm.submit import with_comparison
from parallax.errors import RunError


def cancel(submission: Submission, member: int | None) -> list[str]:
    """Cancels the newest job, or one member of it.

    Raises:
        RunError: it has ended.
    """
    check_slurm()
    word = job_word(submission, member)
    chosen = chosen_members(submission, member)
    active = find_active(read_facts(submission, chosen))
    if not active:
        done = all(read_progress(submission, number).state == "done" for number in chosen)
        raise RunError(f"job {word} has ended; next: {advise(submission, member, active, done)}")
    # A member that was resumed on its own runs in a job of its own.
    for job in sorted({submission.job_of(number).id for number in active}):
        cancel_job(job if member is None else f"{job}_{member}")
    return [
        f"job      {word} is cancelled; its ranks save and leave",
        f"next     {submission.command('resume', word)}",
    ]


def resume(submission: Submission, member: int | None) -> list[str]:
    """Submits the same rendered job again for the same run folders: of a sweep, for those that are not done.

    A job that Slurm holds is let go instead, with all that it was to do.

    Raises:
        RunError: a job still works on them, or all are done.
    """
    check_slurm()
    chosen = chosen_members(submission, member)
    facts = read_facts(submission, chosen)
    active = find_active(facts)
    if held := [number for number in active if facts[number].is_held]:
        return _release(submission, member, held)
    if active:
        job = submission.job_of(active[0]).id
        raise RunError(f"job {job} still waits or runs; first: {submission.command('cancel', job)}")
    left = [number for number in chosen if read_progress(submission, number).state != "done"]
    if not left:
        raise RunError(f"{submission.runs[chosen[0]]} is done; to go on, submit it anew with more train.max_steps")
    return _submit_again(submission, left)


def _release(submission: Submission, member: int | None, held: list[int]) -> list[str]:
    jobs = sorted({job_word(submission, number if submission.is_sweep else None) for number in held})
    for job in jobs:
        release_job(job)
    return [
        f"job      {', '.join(jobs)} was held by Slurm and is let go",
        f"next     {submission.command('status', job_word(submission, member))}",
    ]


def _submit_again(submission: Submission, left: list[int]) -> list[str]:
    # What it once had to wait for is over, and perhaps forgotten.
    options = ["--dependency="]
    if submission.is_sweep:
        limit = f"%{submission.at_once}" if submission.at_once else ""
        options.append(f"--array={','.join(map(str, left))}{limit}")
    job = submit_script(f"{submission.folder}/job.sbatch", *submission.arguments, options=options)
    members = tuple(left) if submission.is_sweep else ()
    submission = submission.with_job(SubmittedJob(job, time.strftime("%Y-%m-%dT%H:%M:%S%z"), members))
    if submission.is_sweep:
        submission = with_comparison(submission)
    runs = ", ".join(submission.runs[number] for number in left[:4]) + (" …" if len(left) > 4 else "")
    word = job_word(submission, left[0] if submission.is_sweep else None)
    return [
        f"job      {job}",
        f"run      {runs}",
        f"logs     {shown(submission.log(left[0]))}",
        f"next     {submission.command('logs', word, ' -f')}",
    ]
