import os
from collections.abc import Mapping
from dataclasses import dataclass

from parallax.errors import BackendError


@dataclass(frozen=True)
class Ranks:
    """This process among those of the run, as its launcher numbered them."""

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    """Number among the processes of this node."""


def read_ranks(environment: Mapping[str, str] = os.environ) -> Ranks:
    """Reads what torchrun, accelerate and DeepSpeed's launcher put into the environment; alone without any.

    Raises:
        BackendError: a part of it is missing or no number.
    """
    if "RANK" not in environment and "WORLD_SIZE" not in environment:
        return Ranks()
    values = []
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        text = environment.get(name, environment.get("RANK", "") if name == "LOCAL_RANK" else "")
        if not text.isdecimal():
            raise BackendError(
                f"{name}={text!r} in the environment is not a rank number; start the run with torchrun, or unset "
                f"RANK and WORLD_SIZE to train in one process"
            )
        values.append(int(text))
    ranks = Ranks(*values)
    if ranks.rank >= ranks.world_size:
        raise BackendError(f"RANK={ranks.rank} is not below WORLD_SIZE={ranks.world_size}; both start at 0 and 1")
    return ranks
