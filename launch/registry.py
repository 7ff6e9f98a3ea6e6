import difflib

from launch.accelerate import Accelerate
from launch.deepspeed import DeepSpeed
from launch.local import Local
from launch.request import Launcher
from launch.slurm.launcher import Slurm
from launch.torchrun import Torchrun
from parallax.errors import BackendError

LAUNCHERS: dict[str, Launcher] = {
    "local": Local(),
    "torchrun": Torchrun(),
    "accelerate": Accelerate(),
    "deepspeed": DeepSpeed(),
    "slurm": Slurm(),
}
"""Every launcher by its name on the command line."""


def find_launcher(name: str) -> Launcher:
    """The launcher of that name.

    Raises:
        BackendError: there is none; the message names the nearest.
    """
    if name in LAUNCHERS:
        return LAUNCHERS[name]
    near = difflib.get_close_matches(name, LAUNCHERS, 1, cutoff=0.4)
    hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(LAUNCHERS)}"
    raise BackendError(f"--via {name}: no such launcher; {hint}")
