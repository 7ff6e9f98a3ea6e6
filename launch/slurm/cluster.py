import difflib
import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass

from launch.slurm.job import Job
from launch.slurm.sweep import expand_tasks
from parallax.errors import BackendError, ConfigError

_ANSWER_SECONDS = 60
_OVER = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY", "BOOT_FAIL", "DEADLINE")


@dataclass(frozen=True)
class JobFacts:
    """What Slurm says of a job, or of one member of an array, now."""

    state: str
    reason: str
    restarts: int
    nodes: str
    run_time: str
    time_limit: str
    exit_code: str = ""
    batch_host: str = ""
    tasks: tuple[int, ...] = ()
    """Members of the array that this is said of; empty: it is none."""

    @property
    def is_over(self) -> bool:
        """Whether it has ended, and will not come back by itself."""
        return self.state in _OVER

    @property
    def is_held(self) -> bool:
        """Whether it waits for a person to let it go, as after a launch that failed on a broken node."""
        return self.state == "PENDING" and "held" in self.reason.lower()


def check_slurm() -> None:
    """Refuses where Slurm's commands are missing.

    Raises:
        BackendError: they are.
    """
    if shutil.which("sbatch") is None:
        raise BackendError("sbatch is not installed here; submit from a login node, or look at it with --dry-run")


def check_cluster(job: Job) -> None:
    """Compares a job with the partitions and nodes that there are.

    Raises:
        ConfigError: unknown partition, too many GPUs on a node, or no such job to wait for.
    """
    rows = [line.split("|") for line in _ask("sinfo", "--noheader", "--format=%P|%G").splitlines() if "|" in line]
    names = sorted({name.rstrip("*") for name, _ in rows})
    if job.partition is not None:
        for name in job.partition.split(","):
            if name not in names:
                near = difflib.get_close_matches(name, names, 1, cutoff=0.4)
                hint = f"did you mean {near[0]}?" if near else f"sinfo knows {', '.join(names) or 'none'}"
                raise ConfigError(f"--partition {name}: no such partition; {hint}")
    if job.on_gpus:
        wanted = job.partition.split(",") if job.partition else [n.rstrip("*") for n, _ in rows if n.endswith("*")]
        counts = [count_gres(gres, job.gpu_type) for name, gres in rows if name.rstrip("*") in wanted]
        _check_gpus(job, max(counts, default=job.ranks_per_node), ",".join(wanted))
    if job.dependency is not None:
        number = job.dependency.rpartition(":")[2]
        if not job_facts(number):
            raise ConfigError(
                f"--after {number}: Slurm knows no such job; those in the queue: {_queue() or 'none'}"
            )


def _check_gpus(job: Job, most: int, partition: str) -> None:
    if job.ranks_per_node <= most:
        return
    kind = f"{job.gpu_type} " if job.gpu_type else ""
    way = f"use --gpus-per-node {most}" if most else "use another --partition, or runtime.device=cpu"
    raise ConfigError(
        f"--gpus-per-node {job.ranks_per_node}: a node of partition {partition} has {most or 'no'} {kind}GPU(s); "
        f"{way}"
    )


def count_gres(text: str, kind: str | None = None) -> int:
    """GPUs of a node, from sinfo's `gpu:a100:4(S:0-1),gpu:v100:2`; only those of a kind, if one is given."""
    found = re.findall(r"\bgpu(?::([A-Za-z][^:,()]*))?:(\d+)", text)
    return sum(int(number) for name, number in found if kind is None or name == kind)


def check_acceptance(job: Job, arguments: Sequence[str]) -> str:
    """Lets Slurm look at the rendered script without submitting it; what it says of the start.

    Raises:
        ConfigError: it refuses it; the message has its words.
    """
    done = _run("sbatch", "--test-only", str(job.script), *arguments)
    said = _last_words(done)
    if done.returncode != 0:
        raise ConfigError(f"Slurm refuses the job: {said}")
    return said


def submit_script(script: str, *arguments: str, options: Sequence[str] = ()) -> str:
    """`sbatch`; the job's number.

    Raises:
        BackendError: it was refused.
    """
    return _ask("sbatch", "--parsable", *options, script, *arguments).split(";")[0]


def cancel_job(job: str) -> None:
    """`scancel` of a job, or of a member JOB_N of an array."""
    _ask("scancel", job)


def release_job(job: str) -> None:
    """`scontrol release` of a held job, or of a member JOB_N of an array."""
    _ask("scontrol", "release", job)


def job_facts(job: str) -> list[JobFacts]:
    """What Slurm says of a job: one entry, or of an array one for each member or group of members.

    Empty: it does not know the job, as it forgets one some minutes after its end; or it is not there at all.

    Raises:
        BackendError: Slurm does not answer.
    """
    if shutil.which("scontrol") is None:
        return []
    done = _run("scontrol", "--oneliner", "show", "job", job)
    if done.returncode != 0:
        if "nvalid job id" in done.stderr:
            return []
        raise BackendError(f"Slurm does not answer: {_last_words(done)}")
    return [parse_facts(line) for line in done.stdout.splitlines() if "JobState=" in line]


def parse_facts(line: str) -> JobFacts:
    """One line of `scontrol --oneliner show job`."""
    facts = dict(re.findall(r"(?:^|\s)(\w+)=(\S*)", line))
    nodes = facts.get("NodeList", "")
    return JobFacts(
        state=facts["JobState"],
        reason=facts.get("Reason", ""),
        restarts=int(facts.get("Restarts", 0)),
        nodes="" if nodes == "(null)" else nodes,
        run_time=facts.get("RunTime", ""),
        time_limit=facts.get("TimeLimit", ""),
        exit_code=facts.get("ExitCode", ""),
        batch_host=facts.get("BatchHost", ""),
        tasks=tuple(expand_tasks(facts.get("ArrayTaskId", ""))),
    )


def _queue() -> str:
    return ", ".join(_ask("squeue", "--noheader", "--me", "--format=%F").split()[:8])


def _ask(*command: str) -> str:
    done = _run(*command)
    if done.returncode != 0:
        raise BackendError(f"{command[0]}: {_last_words(done)}")
    return done.stdout.strip()


def _run(*command: str) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=_ANSWER_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        raise BackendError(f"{command[0]} has not answered within {_ANSWER_SECONDS} s; try again later") from None
    except FileNotFoundError:
        raise BackendError(f"{command[0]} is not installed here; use a login node of the cluster") from None


def _last_words(done: subprocess.CompletedProcess[str]) -> str:
    lines = [line.strip() for line in (done.stderr + done.stdout).splitlines() if line.strip()]
    words = [re.sub(r"^\w+: (error: )?", "", line) for line in lines]
    return "; ".join(words[-2:]) or f"exit code {done.returncode}"
