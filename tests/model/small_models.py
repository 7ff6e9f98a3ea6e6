"""Models small enough for float64, with weights that hide nothing: no norm weight is 1, no matrix is small."""

from typing import Any

import torch
from torch import Tensor

from parallax.config.models.dual_track import DualTrackConfig
from parallax.model.dual_track import DualTrack
from parallax.model.registry import build_model, materialize


def small_config(**changes: Any) -> DualTrackConfig:
    """Two tracks of two layers, 16 wide; epsilons and a theta far from their defaults, so that all show."""
    sizes: dict[str, Any] = {
        "num_layers": 2,
        "num_heads": 4,
        "num_kv_heads": 2,
        "hidden_size": 16,
        "intermediate_size": 24,
        "vocab_size": 11,
        "max_seq_len": 16,
        "norm_eps": 0.05,
        "output_norm_eps": 0.2,
        "rope_theta": 100.0,
    }
    return DualTrackConfig(**(sizes | changes))


def small_model(config: DualTrackConfig, *, seed: int = 0, backend: str = "auto") -> DualTrack:
    """A float64 model with every parameter drawn large."""
    model = build_model(config, attention_backend=backend).double()
    materialize(model, "cpu", seed=seed)
    fill_generously(model, seed)
    return model


@torch.no_grad()
def fill_generously(model: DualTrack, seed: int) -> None:
    """Draws matrices from N(0, 0.3) and norm weights from N(1, 0.3)."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        parameter.normal_(0.0, 0.3, generator=generator)
        if parameter.dim() == 1:
            parameter.add_(1.0)


def random_tokens(config: DualTrackConfig, *, batch: int = 2, length: int = 6, seed: int = 1) -> Tensor:
    """(B, T) token ids."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(config.vocab_size, (batch, length), generator=generator)
