from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Setting:
    """Where the checks run and how much of them."""

    device: torch.device
    quick: bool
    """Shapes that take a CPU seconds instead of those that users train."""

    @property
    def on_gpu(self) -> bool:
        """Whether there are CUDA kernels to look at."""
        return self.device.type == "cuda"

    def synchronize(self) -> None:
        """Waits until the device has done what it was given."""
        if self.on_gpu:
            torch.cuda.synchronize(self.device)
