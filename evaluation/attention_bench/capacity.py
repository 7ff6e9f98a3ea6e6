from pathlib import Path

import psutil
import torch

_USABLE = 0.8
_CGROUP = Path("/sys/fs/cgroup")


def usable_bytes(device: torch.device, cgroup: Path = _CGROUP) -> int:
    """Most of a device's memory that is free now; on the CPU also within what a container is allowed."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return int(_USABLE * free)
    free = psutil.virtual_memory().available
    limit, used = cgroup / "memory.max", cgroup / "memory.current"
    if limit.exists() and used.exists() and (most := limit.read_text().strip()) != "max":
        free = min(free, max(int(most) - int(used.read_text()), 0))
    return int(_USABLE * free)
