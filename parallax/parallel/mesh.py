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
    fsdp_mesh: DeviceMesh | None
    """What FSDP2 shards over (two axes: HSDP); None: nothing is sharded."""

    @property
    def is_first(self) -> bool:
        """Whether this rank speaks for all: it writes journal and screen."""
        return dist.get_rank() == 0


def axis_sizes(layout: Layout) -> dict[Axis, int]:
    """Ranks along each axis, in the order of `Axis`."""
    return dict(zip(Axis, (layout.dp_replicate, layout.dp_shard, layout.track), strict=True))


def rank_grid(layout: Layout) -> Tensor:
    """The ranks as a tensor (dp_replicate, dp_shard, track), whichever axis joins neighbours."""
    names = _outermost_first(layout)
    grid = torch.arange(layout.world_size).view([axis_sizes(layout)[name] for name in names])
    return grid.permute([names.index(axis) for axis in Axis])


def _outermost_first(layout: Layout) -> list[Axis]:
    if layout.track_across:
        return [Axis.TRACK, Axis.DP_REPLICATE, Axis.DP_SHARD]
    return [Axis.DP_REPLICATE, Axis.DP_SHARD, Axis.TRACK]


def build_mesh(layout: Layout, device: torch.device) -> Mesh:
    """Names the axes of the process group that this rank has joined. Collective: every rank calls it.

    The last axis joins neighbouring ranks, which a launcher puts on one node.
    """
    names = _outermost_first(layout)
    shape = tuple(axis_sizes(layout)[name] for name in names)
    mesh = init_device_mesh(device.type, shape, mesh_dim_names=tuple(names))
    ranks = rank_grid(layout)
    replicate, shard, track = range(3)
    track_group = _group_along(ranks, [track], "track")
    dp_group = _group_along(ranks, [replicate, shard], "dp")
    return Mesh(
        layout=layout,
        device_mesh=mesh,
        track=track_group,
        dp=dp_group,
        model=_group_along(ranks, [shard, track], "model"),
        track_rank=dist.get_rank(track_group),
        dp_rank=dist.get_rank(dp_group),
        fsdp_mesh=_fsdp_mesh(layout, mesh),
    )


def _fsdp_mesh(layout: Layout, mesh: DeviceMesh) -> DeviceMesh | None:
    if layout.dp_shard == 1:
        return None
    return mesh[Axis.DP_SHARD] if layout.dp_replicate == 1 else mesh[Axis.DP_REPLICATE, Axis.DP_SHARD]


def _group_along(ranks: Tensor, axes: list[int], name: str) -> dist.ProcessGroup:
    """This rank's group of those that differ along `axes` only; its members alone make it, and wait for no other.

    All ranks make their groups in one order of axes, so that overlapping ones cannot wait for each other. The
    flight recorder shows it as `name`.
    """
    size = math.prod(ranks.shape[axis] for axis in axes)
    groups = ranks.movedim(axes, list(range(-len(axes), 0))).reshape(-1, size)
    members = groups[(groups == dist.get_rank()).any(1)].flatten().tolist()
    group: dist.ProcessGroup = dist.new_group(members, use_local_synchronization=True, group_desc=name)
    return group
