import platform
from collections import Counter
from pathlib import Path

import psutil
import torch

_CPU_INFO = Path("/proc/cpuinfo")


def hardware_tags(device: torch.device, num_nodes: int) -> dict[str, str]:
    """What this node is made of, and how many there are, as flat names and texts.

    `hardware.gpus` are those that this process can see, such as `4 x NVIDIA A100-SXM4-40GB`; it is left out where
    it computes on the CPU.

    Args:
        device: where this process computes.
        num_nodes: of the run.
    """
    tags = {
        "hardware.nodes": str(num_nodes),
        "hardware.cpu": _cpu_model(),
        "hardware.processors": str(psutil.cpu_count()),
        "hardware.memory_gib": f"{psutil.virtual_memory().total / 2**30:.1f}",
    }
    cores = psutil.cpu_count(logical=False)
    if cores is not None:  # some virtual machines do not tell
        tags["hardware.cpu_cores"] = str(cores)
    if device.type == "cuda":
        names = Counter(torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count()))
        tags["hardware.gpus"] = ", ".join(f"{count} x {name}" for name, count in names.items())
    return tags


def _cpu_model() -> str:
    """As Linux says it on x86; elsewhere the name of the kind of processor."""
    if _CPU_INFO.exists():
        for line in _CPU_INFO.read_text(encoding="utf-8", errors="replace").splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name" and value.strip():
                return value.strip()
    return platform.processor() or platform.machine()
