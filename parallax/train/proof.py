"""That a run got what it asked for: looked at on every rank before the first step."""

from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.fsdp import FSDPModule

from parallax.config.flatten import flatten
from parallax.config.run import RunConfig
from parallax.errors import JoinError
from parallax.train.world import World

_OWN = ("runtime.", "run.", "data.", "tracking.", "sample.")
"""Keys that may differ between nodes: paths and the machine."""


def check_ranks_agree(config: RunConfig, world: World) -> None:
    """Compares this rank's settled configuration with the first rank's. Collective.

    Each rank settles its own from its launcher's words, which may differ between nodes.

    Raises:
        JoinError: they differ; on the ranks that do.
    """
    mine = comparable(config)
    first: dict[str, Any] = world.on_first(lambda: mine)
    for key, value in mine.items():
        if value != first[key]:
            raise JoinError(
                f"rank {world.ranks.rank} has {key}={value} and rank 0 has {key}={first[key]}; start all ranks "
                f"with the same configuration, on every node"
            )


def check_joined(world: World, device: torch.device) -> None:
    """Looks whether the process group has the ranks and the backend that this device needs.

    Raises:
        JoinError: it has not.
    """
    if world.mesh is None:
        return
    wanted = "nccl" if device.type == "cuda" else "gloo"
    got, size = dist.get_backend_config().lower(), dist.get_world_size()
    if wanted not in got:
        raise JoinError(f"rank {world.ranks.rank} computes on {device} and got the backend {got}, not {wanted}")
    if size != world.ranks.world_size:
        raise JoinError(
            f"rank {world.ranks.rank} is one of {size} ranks, not of {world.ranks.world_size} as asked for"
        )


def check_sharded(model: nn.Module, config: RunConfig, world: World) -> None:
    """Looks whether FSDP2 holds the model exactly where `parallel.dp_shard` asks for it.

    Raises:
        JoinError: sharding was asked for and is not there, or is there unasked.
    """
    if config.parallel.engine != "native":
        return
    asked = (config.parallel.dp_shard or 1) > 1
    got = any(isinstance(module, FSDPModule) for module in model.modules())
    if asked != got:
        raise JoinError(
            f"rank {world.ranks.rank}: parallel.dp_shard={config.parallel.dp_shard} was asked for and the model "
            f"is {'sharded' if got else 'whole on this rank'}; this is a fault of Parallax, please report it"
        )


def comparable(config: RunConfig) -> dict[str, Any]:
    """The values, by dotted key, that must be the same on all ranks."""
    flat = flatten(config.resolved())
    return {key: value for key, value in flat.items() if not key.startswith(_OWN)}
