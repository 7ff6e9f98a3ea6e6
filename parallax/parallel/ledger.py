from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.utils._python_dispatch import TorchDispatchMode

from parallax.parallel.mesh import Axis, Mesh
from parallax.parallel.traffic import Key, Kind, Phase, Traffic, ring_bytes, sum_traffic

_SILENT = {"barrier", "monitored_barrier_"}
_GROUP_ARGUMENTS = ("process_group", "group_name", "group")
_DATA_AXES = {"dp", Axis.DP_SHARD, Axis.DP_REPLICATE}


@dataclass(frozen=True)
class Collective:
    """One collective as this rank took part in it."""

    phase: Phase
    axis: str
    """A name of `axis_names`, or the ranks that it joins."""
    kind: str
    ranks: int
    payload_bytes: int
    """See `Kind`."""
    part: int
    """The number that `LedgerRecorder.part` had."""

    @property
    def sent_bytes(self) -> int:
        """What leaves this rank on a ring; see `Kind`."""
        return ring_bytes(self.kind, self.ranks, self.payload_bytes)


class LedgerRecorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes every collective that torch dispatches inside it: what `traffic` then holds, on this rank.

    Backward included: autograd hands the modes of the thread that called `backward` to the threads it runs in.
    DTensor's own collectives are seen beneath it, and once. Not seen is what reaches NCCL without torch's
    dispatcher, such as calls of another library.

    Args:
        axes: the name of the axis that a group's ranks are along, by the group's own name; see `axis_names`.
            Another group is called by the ranks it joins.
    """

    def __init__(self, axes: Mapping[str, str]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.collectives: list[Collective] = []
        """All since the last `clear`, in their order; those of a group of one rank too."""
        self.part = 0
        """What the caller is doing, for `Collective.part`."""
        self._axes = axes

    @property
    def traffic(self) -> dict[Key, Traffic]:
        """What was noted since the last `clear`."""
        noted = self.collectives
        return sum_traffic((Key(c.phase, c.axis, c.kind), Traffic(c.ranks, 1, c.payload_bytes)) for c in noted)

    def clear(self) -> None:
        """Forgets what was noted."""
        self.collectives = []

    def __torch_dispatch__(
        self, func: Any, types: Iterable[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        # Handled here, a DTensor's operation would run its collectives where no mode sees them.
        if DTensor in types:
            return NotImplemented
        if func.namespace in ("c10d", "_c10d_functional"):
            self._note(func, args, kwargs or {})
        return func(*args, **(kwargs or {}))

    def _note(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        operation = func._schema.name.split("::")[1]
        names = [argument.name for argument in func._schema.arguments]
        given = dict(zip(names, args, strict=False)) | kwargs
        groups = [_group(given[name]) for name in _GROUP_ARGUMENTS if name in given]
        # Without a group it waits for a collective or wraps its result.
        if not groups or operation in _SILENT:
            return
        [group] = groups
        kind, payload = _COUNTED.get(operation, (operation, _all_tensors))
        axis = self._axes.get(group.group_name) or f"ranks {dist.get_process_group_ranks(group)}"
        self.collectives.append(
            Collective(_phase(axis, kind), axis, kind, group.size(), payload(given, group), self.part)
        )


def axis_names(mesh: Mesh | None) -> dict[str, str]:
    """The names of a mesh's groups: `track`, `dp`, `model`, and `dp_shard` and `dp_replicate` for FSDP2's own."""
    if mesh is None:
        return {}
    names = {str(mesh.device_mesh.get_group(axis).group_name): str(axis) for axis in Axis}
    named = {"track": mesh.track, "dp": mesh.dp, "model": mesh.model}
    return names | {str(group.group_name): name for name, group in named.items()}


def _phase(axis: str, kind: str) -> Phase:
    """Read off the group and the thread: the norm has a group to itself, and a backward knows that it is one."""
    if axis == "model":
        return Phase.NORM
    if axis == "dp" and kind == Kind.BROADCAST:
        return Phase.SETUP
    if torch._C._current_graph_task_id() < 0:
        return Phase.COUNTERS if axis == "dp" else Phase.FORWARD
    if axis in _DATA_AXES and kind != Kind.ALL_GATHER:
        return Phase.GRADIENTS
    return Phase.BACKWARD


def _group(given: Any) -> dist.ProcessGroup:
    if isinstance(given, str):
        return torch._C._distributed_c10d._resolve_process_group(given)  # type: ignore[arg-type]
    return given if isinstance(given, dist.ProcessGroup) else dist.ProcessGroup.unbox(given)


def _bytes(value: Any) -> int:
    if isinstance(value, Tensor):
        return value.numel() * value.element_size()
    return sum(map(_bytes, value)) if isinstance(value, list | tuple) else 0


def _bytes_of(*names: str) -> Callable[[dict[str, Any], dist.ProcessGroup], int]:
    return lambda given, group: sum(_bytes(given[name]) for name in names if name in given)


def _all_tensors(given: dict[str, Any], group: dist.ProcessGroup) -> int:
    return _bytes(list(given.values()))


def _for_others(given: dict[str, Any], group: dist.ProcessGroup) -> int:
    """Of an all-to-all's input, what does not stay here."""
    tensor = given["input"]
    splits = given["input_split_sizes"] or [len(tensor) // group.size()] * group.size()
    leaving = sum(splits) - splits[dist.get_rank(group)]
    return leaving * _bytes(tensor) // max(len(tensor), 1)


_COUNTED: dict[str, tuple[str, Callable[[dict[str, Any], dist.ProcessGroup], int]]] = {
    "allreduce_": (Kind.ALL_REDUCE, _bytes_of("tensors")),
    "allreduce_coalesced_": (Kind.ALL_REDUCE, _bytes_of("tensors")),
    "all_reduce": (Kind.ALL_REDUCE, _bytes_of("input")),
    "all_reduce_": (Kind.ALL_REDUCE, _bytes_of("input")),
    "allgather_": (Kind.ALL_GATHER, _bytes_of("input_tensors")),
    "_allgather_base_": (Kind.ALL_GATHER, _bytes_of("input_tensor")),
    "allgather_into_tensor_coalesced_": (Kind.ALL_GATHER, _bytes_of("inputs")),
    "all_gather_into_tensor": (Kind.ALL_GATHER, _bytes_of("input")),
    "reduce_scatter_": (Kind.REDUCE_SCATTER, _bytes_of("input_tensors")),
    "_reduce_scatter_base_": (Kind.REDUCE_SCATTER, _bytes_of("input_tensor")),
    "reduce_scatter_tensor_coalesced_": (Kind.REDUCE_SCATTER, _bytes_of("inputs")),
    "reduce_scatter_tensor": (Kind.REDUCE_SCATTER, _bytes_of("input")),
    "alltoall_base_": (Kind.ALL_TO_ALL, _for_others),
    "all_to_all_single": (Kind.ALL_TO_ALL, _for_others),
    "broadcast_": (Kind.BROADCAST, _bytes_of("tensors")),
    "broadcast": (Kind.BROADCAST, _bytes_of("input")),
}
"""Operation -> its kind and payload; any other is noted by its own name with all its tensors' bytes."""
