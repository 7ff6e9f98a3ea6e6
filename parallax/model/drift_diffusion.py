import torch
from torch import Tensor, nn

from parallax.config.models.gpt2 import DriftDiffusionConfig
from parallax.model.noise import gaussian


class DriftDiffusion(nn.Module):
    """a + drift_h a + std_h eps for the attention output a of head h, eps from N(0, 1).

    The drifts (H, 1, 1), or one (1, 1, 1) for all heads, are learned, from N(0, 0.02). The noise is drawn in
    training, and otherwise with `diffusion_at_eval` only.
    """

    def __init__(self, config: DriftDiffusionConfig) -> None:
        super().__init__()
        self.config = config
        self.drift = nn.Parameter(torch.empty(config.num_drifts, 1, 1)) if config.drift else None

    def forward(self, attended: Tensor, positions: Tensor, noise: Tensor | None) -> Tensor:
        """(B, H, T, E) -> (B, H, T, E).

        Args:
            attended: attention's output.
            positions: (B or 1, T) of the tokens.
            noise: (B, 2) key of the noise.

        Raises:
            ValueError: noise is to be added and there is no key.
        """
        moved = attended if self.drift is None else attended + self.drift.to(attended.dtype) * attended
        if not self.config.diffuses or not (self.training or self.config.diffusion_at_eval):
            return moved
        if noise is None:
            raise ValueError(f"diffusion_std={self.config.diffusion_std} needs the context's noise")
        _, heads, _, width = attended.shape
        eps = gaussian(noise, positions, heads * width).view(len(attended), -1, heads, width).transpose(1, 2)
        wide = torch.promote_types(moved.dtype, torch.float32)
        deviations = torch.tensor(self.config.deviations, device=eps.device, dtype=wide)[:, None, None]
        return moved + (deviations * eps).to(moved.dtype)
