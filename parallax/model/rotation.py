from typing import cast

import torch
from torch import Tensor, nn

from parallax.config.models.gpt2 import RotatingHeadConfig
from parallax.model.rotary import angles_of


class HeadFrequencies(nn.Module):
    """Rotary frequencies of each head's own: learned (LR), or fixed and scaled from head to head (GP).

        LR   a parameter (H, E/2), drawn from N(0, 1)
        GP   exp(s_h) base^(-2i/E), s_h evenly from 0 to `frequency_spread` over the heads

    and, with `use_norm`, LayerNorm over the E/2 frequencies of a head. A head turns its pairs at position t by
    t times its frequencies. GP with a spread of 0 and no norm is ordinary rotary.
    """

    def __init__(self, config: RotatingHeadConfig) -> None:
        super().__init__()
        pairs = config.head_dim // 2
        self.config = config
        self.frequencies = (
            nn.Parameter(torch.empty(config.num_heads, pairs)) if config.frequencies == "LR" else None
        )
        self.norm = nn.LayerNorm(pairs, eps=config.norm_eps) if config.use_norm else None

    def forward(self, positions: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Cosines and sines (B or 1, H, T, E/2) of the angles at positions (B or 1, T).

        Angles are fp64 for fp64 and fp32 otherwise, whatever autocast says: half precision has no digits left
        for the fraction of a large angle.
        """
        wide = torch.float64 if dtype == torch.float64 else torch.float32
        with torch.autocast(positions.device.type, enabled=False):
            frequencies = (
                self._fixed(positions.device, wide) if self.frequencies is None else self.frequencies.to(wide)
            )
            if self.norm is not None:
                frequencies = cast(Tensor, self.norm(frequencies))
            return angles_of(positions, frequencies[:, None], dtype)

    def _fixed(self, device: torch.device, dtype: torch.dtype) -> Tensor:
        """(H, E/2) of GP, computed anew in every forward like ordinary rotary's."""
        config = self.config
        exponents = torch.arange(0, config.head_dim, 2, device=device, dtype=dtype) / config.head_dim
        scales = torch.linspace(0, config.frequency_spread, config.num_heads, device=device, dtype=dtype).exp()
        return scales[:, None] * config.rope_theta**-exponents
