import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from launch.slurm.limits import format_time


@dataclass(frozen=True, kw_only=True)
class Job:
    """A batch job as it will be rendered: what is asked of Slurm, and what its nodes must set up."""

    name: str
    nodes: int
    ranks_per_node: int
    on_gpus: bool
    """Whether a GPU is asked for each rank."""
    cpus_per_rank: int
    seconds: int
    """Time limit."""
    folder: Path
    """Where script, record and logs lie; absolute."""
    directory: Path
    """Where the job starts: the checkout."""
    python: str
    run: str
    """Run folder; of a sweep, the folder of its members' run folders, each named by its number."""
    members: int = 0
    """Of a sweep; 0: this is none."""
    at_once: int | None = None
    """How many of them may run at the same time; None: all."""
    then: str | None = None
    """Module and arguments to run once all of them have ended."""
    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    mem: str | None = None
    mail: str | None = None
    dependency: str | None = None
    gpu_type: str | None = None
    modules: tuple[str, ...] = ()
    activate: str | None = None
    container: str | None = None
    network_interface: str | None = None
    restarts: int | None = None
    """How often the job may come back; None: the script's own number."""
    environment: Mapping[str, str] = field(default_factory=dict)
    sbatch: tuple[str, ...] = ()

    @property
    def cpus(self) -> int:
        """Of each node."""
        return self.cpus_per_rank * self.ranks_per_node

    @property
    def script(self) -> Path:
        """The rendered job."""
        return self.folder / "job.sbatch"

    @property
    def sweep_file(self) -> Path:
        """One line of overrides for each member."""
        return self.folder / "sweep.txt"

    @property
    def queue_options(self) -> list[str]:
        """Where it waits, and who pays."""
        given = {"partition": self.partition, "account": self.account, "qos": self.qos}
        return [f"--{name}={value}" for name, value in given.items() if value is not None]


def job_name(run_name: str) -> str:
    """A run's name as a job's, which becomes a part of file names."""
    return re.sub(r"[^\w.-]+", "-", run_name)


def resource_lines(job: Job) -> list[str]:
    """The #SBATCH lines of a job."""
    number = "%A_%a" if job.members else "%j"
    options = [f"--job-name={job.name}", *job.queue_options, f"--nodes={job.nodes}"]
    if job.on_gpus:
        kind = f"{job.gpu_type}:" if job.gpu_type else ""
        options.append(f"--gpus-per-node={kind}{job.ranks_per_node}")
    options += [f"--cpus-per-task={job.cpus}", f"--time={format_time(job.seconds)}"]
    optional = {"mem": job.mem, "constraint": job.constraint, "mail-user": job.mail}
    options += [f"--{name}={value}" for name, value in optional.items() if value is not None]
    if job.mail is not None:
        options.append("--mail-type=END,FAIL,REQUEUE")
    if job.dependency is not None:
        # Otherwise it waits for ever once the other job has failed.
        options += [f"--dependency={job.dependency}", "--kill-on-invalid-dep=yes"]
    if job.members:
        limit = f"%{job.at_once}" if job.at_once else ""
        options.append(f"--array=0-{job.members - 1}{limit}")
    options += [f"--chdir={job.directory}", f"--output={job.folder}/%x-{number}.out", *job.sbatch]
    return [f"#SBATCH {_quoted(option)}" for option in options]


def site_lines(job: Job) -> list[str]:
    """What the script does on its first node before it starts anything."""
    lines = ["export NCCL_DEBUG=${NCCL_DEBUG:-WARN} SLURM_CPU_BIND=${SLURM_CPU_BIND:-verbose,cores}"]
    if job.modules or job.activate:
        lines.append("set +u # what sites bring reads variables that are not set")
        if job.modules:
            lines.append(f"module load {shlex.join(job.modules)} || exit 2")
        if job.activate:
            lines.append(f"{job.activate} || exit 2")
        lines.append("set -u")
    if job.network_interface:
        name = shlex.quote(job.network_interface)
        lines.append(f"export NCCL_SOCKET_IFNAME={name} GLOO_SOCKET_IFNAME={name}")
    variables = {"PARALLAX_PYTHON": job.python, "PARALLAX_NPROC": str(job.ranks_per_node)}
    if job.container:
        variables["PARALLAX_CONTAINER"] = job.container
    if job.restarts is not None:
        variables["PARALLAX_RESTARTS"] = str(job.restarts)
    if job.members:
        variables["PARALLAX_SWEEP"] = str(job.sweep_file)
    lines += [_export(name, value) for name, value in (variables | dict(job.environment)).items()]
    member = "/$SLURM_ARRAY_TASK_ID" if job.members else ""
    return [*lines, _export("PARALLAX_RUN", job.run) + member]


def _export(name: str, value: str) -> str:
    return f"export {name}={shlex.quote(value)}"


def _quoted(option: str) -> str:
    name, equals, value = option.partition("=")
    return f'{name}{equals}"{value}"' if re.search(r"\s", value) else option
