import math
from dataclasses import dataclass
from enum import StrEnum

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

from parallax.config.layout import Layout


class Axis(StrEnum):
    """The names of the mesh's axes."""

    DP_REPLICATE = "dp_replicate"
    DP_SHARD = "dp_shard"
    TRACK = "track"


@dataclass(frozen=True)
class Mesh:
    """The ranks of a run along named axes, and the groups that talk along them."""

    layout: Layout
    device_mesh: DeviceMesh
    """Three axes, each of size 1 or more."""
    track: dist.ProcessGroup
    """The ranks that share one model's tracks and read the same samples."""
    dp: dist.ProcessGroup
    """The ranks that hold the same tracks and read different samples: dp_replicate x dp_shard."""
    model: dist.ProcessGroup
    """The ranks that hold one whole model between them: dp_shard x track."""
    track_rank: int
    dp_rank: int
    """Which block of rows of the global batch this rank reads."""

    @property
    def is_first(self) -> bool:
        """Whether this rank speaks for all: it writes journal and screen."""
        return dist.get_rank() == 0

    @property
    def fsdp_mesh(self) -> DeviceMesh | None:
        """What FSDP2 shards over (two axes: HSDP); None: nothing is sharded."""
        if self.layout.dp_shard == 1:
            return None
        if self.layout.dp_replicate == 1:
            return self.device_mesh[Axis.DP_SHARD]
        return self.device_mesh[Axis.DP_REPLICATE, Axis.DP_SHARD]


def build_mesh(layout: Layout, device: torch.device) -> Mesh:
    """Names the axes of the process group that this rank has joined. Collective: every rank calls it.

    The last axis joins neighbouring ranks, which a launcher puts on one node.
    """
    sizes = {
        Axis.DP_REPLICATE: layout.dp_replicate,
        Axis.DP_SHARD: layout.dp_shard,
        Axis.TRACK: layout.track,
    }
    names = [Axis.DP_REPLICATE, Axis.DP_SHARD, Axis.TRACK]
    if layout.track_across:
        names = [Axis.TRACK, Axis.DP_REPLICATE, Axis.DP_SHARD]
    mesh = init_device_mesh(device.type, tuple(sizes[name] for name in names), mesh_dim_names=tuple(names))
    ranks = mesh.mesh.permute([names.index(axis) for axis in sizes])
    replicate, shard, track = range(3)
    track_group = _groups_along(ranks, [track], "track")
    dp_group = _groups_along(ranks, [replicate, shard], "dp")
    return Mesh(
        layout=layout,
        device_mesh=mesh,
        track=track_group,
        dp=dp_group,
        model=_groups_along(ranks, [shard, track], "model"),
        track_rank=dist.get_rank(track_group),
        dp_rank=dist.get_rank(dp_group),
    )


def _groups_along(ranks: Tensor, axes: list[int], name: str) -> dist.ProcessGroup:
    """This rank's group of those that differ along `axes` only; all ranks make all groups, in one order.

    The flight recorder shows it as `name`.
    """
    size = math.prod(ranks.shape[axis] for axis in axes)
    members = ranks.movedim(axes, list(range(-len(axes), 0))).reshape(-1, size)
    group, _ = dist.new_subgroups_by_enumeration(members.tolist(), group_desc=name)  # type: ignore[no-untyped-call]
    return group
