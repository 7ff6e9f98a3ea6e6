import ctypes
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import psutil

from parallax.config.accelerate import accelerate_statements, read_file
from parallax.config.statement import Statement
from parallax.config.strategy import PLANNED_RANKS
from parallax.errors import ConfigError, JoinError
from parallax.runtime.ranks import Ranks

LauncherName = Literal["none", "torchrun", "accelerate", "deepspeed", "srun"]

_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class Launcher:
    """Who started this process, and what it asks of the run."""

    name: LauncherName
    statements: tuple[Statement, ...] = ()
    planned_ranks: int | None = None
    """The world size that was planned; None: nobody said."""
    wants_gpus: bool = False
    """Whether its configuration names GPUs (accelerate's MULTI_GPU)."""

    @property
    def suggested_engine(self) -> str:
        """What `parallel.engine=auto` means: whoever starts DeepSpeed's launcher wants DeepSpeed."""
        return "deepspeed" if self.name == "deepspeed" else "native"


def read_launcher(environment: Mapping[str, str] = os.environ) -> Launcher:
    """Recognises the launcher by the variables it leaves to its processes.

    Raises:
        ConfigError: it asks for what does not exist here.
    """
    planned = environment.get(PLANNED_RANKS, "")
    planned_ranks = int(planned) if planned.isdecimal() else None
    if "ACCELERATE_MIXED_PRECISION" in environment:
        alone = "RANK" not in environment
        if alone and planned_ranks is None:
            planned_ranks = _asked_of_accelerate(environment)
        plugin = {"ACCELERATE_USE_FSDP", "ACCELERATE_USE_DEEPSPEED"} & environment.keys()
        statements = accelerate_statements(environment)
        return Launcher("accelerate", tuple(statements), planned_ranks, wants_gpus=not alone and not plugin)
    return Launcher(_name(environment), (), planned_ranks)


def check_started(launcher: Launcher, ranks: Ranks, device_type: str, command: str) -> None:
    """Refuses a world that is not the one asked for.

    Args:
        launcher: who started this process.
        ranks: what it was given.
        device_type: where this process computes, such as `cpu`.
        command: the module and arguments of this run, for a line that works.

    Raises:
        JoinError: other ranks than planned, or accelerate's GPUs on a machine that computes on the CPU.
    """
    planned = launcher.planned_ranks
    if planned is not None and planned != ranks.world_size:
        if launcher.name == "accelerate":
            raise JoinError(
                f"accelerate was asked for num_processes={planned} and started {ranks.world_size} (MULTI_CPU "
                f"needs mpirun); this works: torchrun --nproc-per-node {planned} -m {command}"
            )
        raise JoinError(
            f"the launch plan has {planned} ranks and this process is one of WORLD_SIZE={ranks.world_size}; "
            f"start it with python -m launch, or unset {PLANNED_RANKS}"
        )
    if launcher.wants_gpus and device_type == "cpu" and ranks.world_size > 1:
        raise JoinError(
            f"accelerate's configuration says distributed_type=MULTI_GPU and rank {ranks.rank} computes on the "
            f"CPU; this works: torchrun --nproc-per-node {ranks.world_size} -m {command}"
        )


def end_with(launcher: Launcher) -> None:
    """Has this process asked to stop when its launcher dies, which no other would tell it; on Linux."""
    if launcher.name in ("torchrun", "accelerate", "deepspeed") and sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)


def _name(environment: Mapping[str, str]) -> LauncherName:
    if "TORCHELASTIC_RUN_ID" in environment:
        return "torchrun"
    if "CROSS_RANK" in environment and "CROSS_SIZE" in environment:
        return "deepspeed"
    if "SLURM_PROCID" in environment and "RANK" in environment:
        return "srun"
    return "none"


def _asked_of_accelerate(environment: Mapping[str, str]) -> int | None:
    """How many processes accelerate was asked for, where it started one without a rank.

    It passes the number on to nobody, so its own command line and configuration file are read.
    """
    parent = psutil.Process().parent()
    try:
        arguments = parent.cmdline() if parent is not None else []
    except psutil.Error:
        return None
    if "launch" not in arguments and not any("accelerate" in word for word in arguments):
        return None
    stated = _option(arguments, "num_processes")
    if stated is not None:
        return int(stated) if stated.isdecimal() else None
    cache = Path(environment.get("HF_HOME", "~/.cache/huggingface")).expanduser()
    path = _option(arguments, "config_file") or str(cache / "accelerate" / "default_config.yaml")
    try:
        number = read_file(path).get("num_processes")
    except ConfigError:
        return None
    return number if isinstance(number, int) else None


def _option(arguments: Sequence[str], name: str) -> str | None:
    """The value of an option of accelerate, which takes it with dashes and with underscores."""
    for position, argument in enumerate(arguments):
        option, equals, value = argument.partition("=")
        if option.replace("-", "_") == f"__{name}":
            return value if equals else next(iter(arguments[position + 1 :]), None)
    return None
