import re
from dataclasses import dataclass

import torch

from parallax.errors import ConfigError
from parallax.train.planning.rank_plan import RankPlan

MIB = 2**20
CONTEXT_BYTES = 500 * MIB
"""CUDA context and loaded kernels: an assumption, the upper end of the 0.3-0.5 GB of `metrics/footprint.py`."""
WORKSPACE_BYTES = 95 * MIB
"""cuBLAS's workspaces: the most of the 70-95 MiB measured on one H200 (`docs/PLANNING.md`)."""
SLACK = 0.05
"""Share of the tensors that an allocator rounds up or cannot reuse: an assumption, not measured."""
NCCL_BYTES = 256 * MIB
"""NCCL's buffers, where a run has several ranks: an assumption, not measured."""

ASSUMED = ("allocator slack", "CUDA context", "workspace", "NCCL")
"""Parts of a need that no plan rehearses."""
_UNITS = {"": 1, "B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40, "MB": 10**6, "GB": 10**9}
_SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([KMGT]iB|[MG]B|B|)")


def parse_bytes(text: str) -> int:
    """Bytes of a size such as 6GiB or 6000MB.

    Raises:
        ConfigError: it is no size.
    """
    matched = _SIZE.fullmatch(text.strip())
    if matched is None or float(matched[1]) == 0:
        raise ConfigError(f"{text} is no memory size; write one such as 6GiB, 6144MiB or 6GB")
    return int(float(matched[1]) * _UNITS[matched[2]])


@dataclass(frozen=True)
class Need:
    """What a rank needs of its device, by what it is for."""

    parts: dict[str, int]
    """Kind -> bytes at the moment when the step holds most, and what lies beside the tensors."""

    @property
    def total_bytes(self) -> int:
        """The sum."""
        return sum(self.parts.values())

    @property
    def tensor_bytes(self) -> int:
        """What of it is tensors."""
        return sum(size for kind, size in self.parts.items() if kind not in ASSUMED)

    def fits(self, memory_bytes: int) -> bool:
        """Whether the device has as much."""
        return self.total_bytes <= memory_bytes


def need_of(planned: RankPlan, *, on_gpu: bool) -> Need:
    """Tensors at the step's peak, and beside them context, workspace, NCCL and what the allocator wastes.

    On a CPU only the allocator's waste comes on top.
    """
    peak = max(planned.memory.values(), key=lambda kinds: sum(kinds.values()))
    parts = {kind: size for kind, size in peak.items() if size > 0}
    parts["allocator slack"] = int(SLACK * planned.peak_bytes)
    return Need(parts | beside_tensors(planned.layout.world_size, on_gpu=on_gpu))


def beside_tensors(world_size: int, *, on_gpu: bool) -> dict[str, int]:
    """What a GPU holds whatever the model is; nothing on a CPU."""
    if not on_gpu:
        return {}
    fixed = {"CUDA context": CONTEXT_BYTES, "workspace": WORKSPACE_BYTES}
    return fixed | ({"NCCL": NCCL_BYTES} if world_size > 1 else {})


def memory_of(device: torch.device) -> int | None:
    """Bytes that a CUDA device has; None for a CPU, whose memory is shared with everything else."""
    if device.type != "cuda":
        return None
    return int(torch.cuda.get_device_properties(device).total_memory)
