import re
from pathlib import Path

import torch

_CPU_CACHES = Path("/sys/devices/system/cpu/cpu0/cache")
_UNITS = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "": 1}
_GUESS = 64 << 20
_TIMES = 4
_LEAST_BYTES = 1 << 27


def last_level_bytes(device: torch.device, folder: Path = _CPU_CACHES) -> int:
    """Of the CPU's largest cache, as Linux tells it, or of a GPU's L2; where nobody tells, 64 MiB."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).L2_cache_size
    sizes = [path.read_text().strip() for path in folder.glob("index*/size")]
    found = [re.fullmatch(r"(\d+)([KMG]?)", size) for size in sizes]
    return max((int(match[1]) * _UNITS[match[2]] for match in found if match), default=_GUESS)


class Flusher:
    """A buffer of four times the last cache, at least 128 MiB; to write it throws everything else out."""

    def __init__(self, device: torch.device) -> None:
        size = max(_LEAST_BYTES, _TIMES * last_level_bytes(device))
        self._buffer = torch.zeros(size // 4, device=device)

    @property
    def num_bytes(self) -> int:
        """Of the buffer."""
        return self._buffer.nbytes

    def flush(self) -> None:
        """Reads and writes all of it: plain filling may pass the caches by."""
        self._buffer.add_(1.0)
