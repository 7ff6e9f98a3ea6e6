import difflib
from dataclasses import dataclass

import torch

from parallax.errors import ConfigError
from parallax.metrics.gpu_table import lookup_gpu_peak


@dataclass(frozen=True)
class Gpu:
    """A card as its maker's data sheet describes it; nothing here was measured."""

    device_name: str
    """As `torch.cuda.get_device_name` gives it."""
    num_multiprocessors: int
    memory_gigabytes: int
    """In units of 10^9 bytes: the driver shows no less."""
    link_gigabytes: float
    """GB/s that it sends at most, over NVLink or the PCIe bus."""

    @property
    def memory_bytes(self) -> int:
        """What a plan has to fit into."""
        return self.memory_gigabytes * 10**9

    @property
    def flops(self) -> float:
        """Dense peak of 16-bit products accumulated in fp32."""
        found = lookup_gpu_peak(self.device_name, self.num_multiprocessors, torch.float16)
        assert found is not None
        return found


GPUS = {
    "rtx3050": Gpu("NVIDIA GeForce RTX 3050", 18, 6, 16),
    "rtx3060": Gpu("NVIDIA GeForce RTX 3060", 28, 12, 32),
    "rtx3090": Gpu("NVIDIA GeForce RTX 3090", 82, 24, 32),
    "rtx4090": Gpu("NVIDIA GeForce RTX 4090", 128, 24, 32),
    "t4": Gpu("Tesla T4", 40, 16, 16),
    "l4": Gpu("NVIDIA L4", 58, 24, 32),
    "a100-40gb": Gpu("NVIDIA A100-SXM4-40GB", 108, 40, 300),
    "a100-80gb": Gpu("NVIDIA A100-SXM4-80GB", 108, 80, 300),
    "h100": Gpu("NVIDIA H100 80GB HBM3", 132, 80, 450),
    "h200": Gpu("NVIDIA H200", 132, 141, 450),
}
"""By the name that `parallax plan --gpu` takes; the RTX 3050 is the one of 6 GB."""


def find_gpu(name: str) -> Gpu:
    """A known card.

    Raises:
        ConfigError: it is not known; the message names the nearest that is.
    """
    found = GPUS.get(name.lower())
    if found is None:
        near = difflib.get_close_matches(name.lower(), GPUS, 1, cutoff=0.4)
        hint = f"did you mean {near[0]}? " if near else ""
        raise ConfigError(
            f"--gpu {name}: {hint}known are {', '.join(GPUS)}; for another card give --memory, --flops and "
            f"--link-bandwidth"
        )
    return found
