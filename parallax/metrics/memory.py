import resource
import sys
from dataclasses import dataclass

import psutil
import torch


@dataclass(frozen=True)
class MemoryUsage:
    """Memory held for this process."""

    current_bytes: int
    """CPU: resident memory. CUDA: memory in tensors."""
    peak_bytes: int
    """The highest `current_bytes` since the process began."""


def memory_usage(device: torch.device) -> MemoryUsage:
    """What this process holds on `device`: tensors on a GPU, the resident set on the CPU."""
    if device.type == "cuda":
        return MemoryUsage(torch.cuda.memory_allocated(device), torch.cuda.max_memory_allocated(device))
    resident = psutil.Process().memory_info().rss
    # The kernel updates its high-water mark lazily, so it can lag behind the present value.
    return MemoryUsage(resident, max(resident, _peak_resident_bytes()))


def _peak_resident_bytes() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
