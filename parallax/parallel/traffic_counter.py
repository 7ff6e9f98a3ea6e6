from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from parallax.parallel.mesh import Axis, Mesh
from parallax.parallel.traffic import Kind, ring_bytes

_KINDS = {
    "c10d.allreduce_.default": Kind.ALL_REDUCE,
    "c10d.allgather_.default": Kind.ALL_GATHER,
    "c10d._allgather_base_.default": Kind.ALL_GATHER,
    "c10d._reduce_scatter_base_.default": Kind.REDUCE_SCATTER,
    "c10d.alltoall_base_.default": Kind.ALL_TO_ALL,
}


@dataclass(frozen=True)
class Collective:
    """One collective as this rank took part in it."""

    axis: str
    """A name of `Axis`; or dp, dp_replicate x dp_shard; or model, dp_shard x track."""
    operation: str
    ranks: int
    payload_bytes: int
    """What this rank puts in."""
    sent_bytes: int
    """What leaves this rank on a ring (see `Kind`); an all-to-all sends what is addressed to others."""
    part: int
    """The number that `TrafficCounter.part` had."""


class TrafficCounter(TorchDispatchMode):
    """Notes every collective that this rank takes part in, over groups of more than one."""

    def __init__(self, mesh: Mesh) -> None:
        super().__init__()
        self.collectives: list[Collective] = []
        self.part = 0
        """What the caller is doing, for `Collective.part`."""
        self._axes = {mesh.device_mesh.get_group(axis).group_name: str(axis) for axis in Axis}
        self._axes |= {mesh.track.group_name: "track", mesh.dp.group_name: "dp", mesh.model.group_name: "model"}

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if DTensor in types:
            return NotImplemented  # it comes back with the local tensors
        if getattr(func, "namespace", "") in ("c10d", "_c10d_functional"):
            self._note(str(func), args)
        return func(*args, **(kwargs or {}))

    def _note(self, operation: str, args: Sequence[Any]) -> None:
        [boxed] = [value for value in args if isinstance(value, torch.ScriptObject) and _is_group(value)]
        group = dist.ProcessGroup.unbox(boxed)
        if group.size() == 1:
            return
        payload = sum(t.nbytes for t in tree_leaves(args[_input_place(operation)]) if isinstance(t, Tensor))
        self.collectives.append(
            Collective(
                axis=self._axes.get(group.group_name, "other"),
                operation=operation.split(".")[1].strip("_").removesuffix("_base"),
                ranks=group.size(),
                payload_bytes=payload,
                sent_bytes=_sent_bytes(operation, group, payload, args),
                part=self.part,
            )
        )


def _is_group(value: torch.ScriptObject) -> bool:
    return "ProcessGroup" in str(value._type())


def _input_place(operation: str) -> int:
    return 0 if _KINDS.get(operation) is Kind.ALL_REDUCE else 1


def _sent_bytes(operation: str, group: dist.ProcessGroup, payload: int, args: Sequence[Any]) -> int:
    kind = _KINDS.get(operation)
    if kind is None:
        raise ValueError(f"{operation}: no rule for the bytes that it sends")
    if kind is Kind.ALL_TO_ALL:
        rows = args[4]
        payload = payload * (sum(rows) - rows[group.rank()]) // sum(rows)
    return ring_bytes(kind, group.size(), payload)
