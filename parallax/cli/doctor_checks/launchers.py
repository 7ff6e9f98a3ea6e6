import shutil
import subprocess
import sys
import time
from pathlib import Path

from parallax.cli.doctor_checks.finding import Finding

_MODULES = {
    "torchrun": "torch.distributed.run",
    "accelerate": "accelerate.commands.launch",
    "deepspeed": "deepspeed.launcher.runner",
}
"""Launcher -> what its command runs."""


def check_launchers(timeout_seconds: float = 8) -> list[Finding]:
    """Whether each launcher would start: its module is imported, as its command does first; none is started."""
    found = [Finding("launcher local", "ok", "python -m parallax.train CONFIG")]
    trials = {
        name: subprocess.Popen(
            [sys.executable, "-c", f"import {module}"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for name, module in _MODULES.items()
    }
    deadline = time.monotonic() + timeout_seconds
    for name, trial in trials.items():
        try:
            _, errors = trial.communicate(timeout=max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            trial.kill()
            trial.communicate()
            found.append(Finding(f"launcher {name}", "note", f"did not load in {timeout_seconds:g} s; try again"))
            continue
        found.append(_judge(name, trial.returncode, errors))
    srun = shutil.which("srun")
    found.append(Finding("launcher srun", "ok" if srun else "note", srun or "no Slurm on this machine"))
    return found


def _judge(name: str, code: int, errors: str) -> Finding:
    if code:
        last = next(iter(reversed(errors.strip().splitlines())), f"exit code {code}")
        return Finding(f"launcher {name}", "note", f"does not load: {last}")
    command = command_of(name)
    way = command or f"loads; its command is not on PATH: python -m {_MODULES[name]}"
    return Finding(f"launcher {name}", "ok", way)


def command_of(name: str) -> str | None:
    """The command beside this interpreter, as in an environment that was not activated, or the one on PATH."""
    beside = Path(sys.executable).parent / name
    return str(beside) if beside.exists() else shutil.which(name)
