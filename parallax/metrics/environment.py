import getpass
import os
import platform
import shlex
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import torch

import parallax
from parallax.runtime.attempt import read_job_facts

_GIT_TIMEOUT_SECONDS = 5


@dataclass(frozen=True)
class GitState:
    """Which version of the source ran."""

    commit: str
    """Full hash."""
    branch: str
    """Branch name, or `(detached)`."""
    dirty: bool
    """Whether tracked files differ from the commit."""


def git_state(folder: Path) -> GitState | None:
    """The state of the repository that `folder` belongs to; None without git, a repository or a commit.

    A folder that the repository around it does not track, such as a virtual environment's, does not belong.
    """
    report = _git(folder, "status", "--porcelain=v2", "--branch", "--untracked-files=no")
    if not report or not _git(folder, "ls-files", "--", "."):
        return None
    lines = report.splitlines()
    facts = dict(line.split(" ", 2)[1:] for line in lines if line.startswith("# "))
    if facts["branch.oid"] == "(initial)":
        return None
    dirty = any(not line.startswith("# ") for line in lines)
    return GitState(facts["branch.oid"], facts["branch.head"], dirty)


def source_git_state() -> GitState | None:
    """The state of the repository that this package's source lies in; None as `git_state`."""
    return git_state(Path(parallax.__file__).parent)


def _git(folder: Path, *arguments: str) -> str | None:
    # Optional locks: `git status` would otherwise write the index of a repository that others work in.
    environment = {**os.environ, "GIT_OPTIONAL_LOCKS": "0"}
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments],
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=_GIT_TIMEOUT_SECONDS,
            env=environment,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None


def environment_tags(device: torch.device) -> dict[str, str]:
    """What is needed to tell later where and with what a run was made, as flat names and texts.

    `git.commit`, `git.branch` and `git.dirty` are those of the repository that the package's source lies in;
    they are left out where there is none. `slurm.job_id` and its kin are those of the Slurm job, where it is one.
    """
    tags = {
        "command": shlex.join(sys.orig_argv),
        "host": socket.gethostname(),
        "device": _device_name(device),
        "parallax": parallax.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "platform": platform.platform(),
        "cpu_threads": str(torch.get_num_threads()),
    }
    if torch.version.cuda is not None:
        tags["cuda"] = torch.version.cuda
    user = _user_name()
    if user is not None:
        tags["user"] = user
    git = source_git_state()
    if git is not None:
        tags |= {"git.commit": git.commit, "git.branch": git.branch, "git.dirty": str(git.dirty).lower()}
    return tags | {f"slurm.{name}": fact for name, fact in read_job_facts().items()}


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)


def _user_name() -> str | None:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user id without a name
        return None
