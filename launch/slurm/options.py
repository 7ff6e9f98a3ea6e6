import argparse
import re
import sys
from pathlib import Path

from launch.slurm.job import Job, job_name
from launch.slurm.limits import check_memory, parse_time
from launch.slurm.profile import Profile, load_profile
from launch.slurm.record import DEFAULT_LOGS
from parallax.config.run import RunConfig
from parallax.errors import ConfigError

_AFTER = re.compile(r"(?:(afterok|afterany):)?(\d+)")
_TEXTS = {
    "time": ("LIMIT", "time limit: minutes, H:MM:SS or D-HH:MM:SS"),
    "partition": ("NAME", "the queue"),
    "account": ("NAME", "who pays"),
    "qos": ("NAME", "quality of service"),
    "constraint": ("FEATURES", "what nodes must have"),
    "mem": ("SIZE", "memory of each node, such as 64G"),
    "after": ("JOB", "start once that job has succeeded; afterany:JOB: has ended"),
    "mail": ("ADDRESS", "where Slurm writes to"),
    "container": ("COMMAND", "before the interpreter's, such as 'apptainer exec --nv image.sif'"),
    "modules": ("NAMES", "for `module load`, with blanks between them"),
    "profile": ("NAME", "the site's file in slurm/profiles"),
    "template": ("FILE", "instead of slurm/train.sbatch"),
    "members": ("FILE", "one array over the lines of a file, each a run's key=value …; instead of --sweep"),
    "then": ("COMMAND", "python -m COMMAND in the job that compares a sweep's members, once all have ended"),
    "logs": ("FOLDER", f"where each job gets a folder; {DEFAULT_LOGS} unless stated"),
}
_NUMBERS = {
    "cpus-per-rank": ("C", "processors for each rank"),
    "at-once": ("N", "members of a sweep that run at the same time"),
    "restarts": ("N", "how often the job may come back"),
}


def add_slurm_options(parser: argparse.ArgumentParser) -> None:
    """Those of `--via slurm`."""
    group = parser.add_argument_group("--via slurm")
    for name, (metavar, words) in _TEXTS.items():
        group.add_argument(f"--{name}", metavar=metavar, help=words)
    for name, (metavar, words) in _NUMBERS.items():
        group.add_argument(f"--{name}", metavar=metavar, help=words, type=int)
    group.add_argument(
        "--sweep",
        action="extend",
        nargs="+",
        metavar="key=v,v",
        help="one array over all combinations, for example --sweep optim.lr=1e-3,3e-4 model.num_loops=1,2",
    )


def given_slurm_options(given: argparse.Namespace) -> list[str]:
    """The names of the options above that were given."""
    names = [*_TEXTS, *_NUMBERS, "sweep"]
    return [f"--{name}" for name in names if getattr(given, name.replace("-", "_")) is not None]


def profile_of(given: argparse.Namespace) -> Profile:
    """The site's profile; without one, Slurm's and our own defaults.

    Raises:
        ConfigError: it is unknown or has a mistake.
    """
    return load_profile(given.profile) if given.profile is not None else Profile()


def build_job(given: argparse.Namespace, profile: Profile, config: RunConfig, members: int, stamp: str) -> Job:
    """What the command line asks for, over what the profile says.

    Args:
        given: the command line.
        profile: of the site.
        config: the run; of a sweep, what its members have in common.
        members: of the sweep; 0: there is none.
        stamp: makes the folder's name unique.

    Raises:
        ConfigError: a value that Slurm would not understand.
    """
    container = given.container or profile.container
    name = job_name(config.run.name) + ("-sweep" if members else "")
    folder = Path(given.logs or DEFAULT_LOGS).absolute() / f"{name}-{stamp}"
    for option in ("at_once", "restarts", "cpus_per_rank"):
        value = getattr(given, option)
        if value is not None and value < (0 if option == "restarts" else 1):
            raise ConfigError(f"--{option.replace('_', '-')} {value}: expected 1 or more")
    for option in ("at_once", "then"):
        if getattr(given, option) is not None and not members:
            raise ConfigError(f"--{option.replace('_', '-')} is for a sweep; add --sweep key=value,value")
    time = given.time or profile.time
    if time is None:
        raise ConfigError("--time is missing; for example: --time 4:00:00 (or time: in the site's profile)")
    memory = given.mem or profile.mem
    return Job(
        name=name,
        nodes=given.nodes,
        ranks_per_node=given.processes_per_node or profile.gpus_per_node or 1,
        on_gpus=config.runtime.device != "cpu",
        cpus_per_rank=given.cpus_per_rank or profile.cpus_per_rank,
        seconds=parse_time(str(time)),
        folder=folder,
        directory=Path.cwd(),
        python=profile.python or ("python" if container or profile.activate else sys.executable),
        run=f"{config.run.dir}-sweep-{stamp}" if members else config.run.dir,
        members=members,
        at_once=given.at_once,
        then=given.then,
        partition=given.partition or profile.partition,
        account=given.account or profile.account,
        qos=given.qos or profile.qos,
        constraint=given.constraint or profile.constraint,
        mem=check_memory(memory) if memory else None,
        mail=given.mail or profile.mail,
        dependency=_dependency(given.after),
        gpu_type=profile.gpu_type,
        modules=tuple(given.modules.split()) if given.modules else profile.modules,
        activate=profile.activate,
        container=container,
        network_interface=profile.network_interface,
        restarts=given.restarts,
        environment={key: str(value) for key, value in profile.environment.items()},
        sbatch=profile.sbatch,
    )


def _dependency(after: str | None) -> str | None:
    if after is None:
        return None
    match = _AFTER.fullmatch(after)
    if match is None:
        raise ConfigError(f"--after {after}: expected a job's number, or afterany:NUMBER")
    return f"{match.group(1) or 'afterok'}:{match.group(2)}"
