"""The architectures of the GPT-2 family and their settings, small enough for float64 over several ranks."""

from typing import Any

from parallax.config.load import check_model_config
from parallax.config.models.gpt2 import Gpt2Config

SIZES: dict[str, Any] = {
    "num_layers": 2,
    "num_heads": 2,
    "hidden_size": 8,
    "intermediate_size": 12,
    "vocab_size": 13,
    "max_seq_len": 6,
}
VARIANTS: dict[str, dict[str, Any]] = {
    "gpt2": {"architecture": "gpt2"},
    "drift": {"architecture": "gpt2_drift_diffusion", "diffusion_std": 0.0},
    "diffusion": {"architecture": "gpt2_drift_diffusion", "diffusion_std": [0.3, 0.1]},
    "merged": {"architecture": "gpt2_drift_diffusion", "per_head": False},
    "mean": {"architecture": "gpt2_parallel", "num_layers": 6},
    "concat": {"architecture": "gpt2_parallel", "num_layers": 6, "merge": "concat"},
    "LR": {"architecture": "gpt2_rotating_head", "use_norm": True},
    "GP": {"architecture": "gpt2_rotating_head", "frequencies": "GP", "use_norm": True},
    "duo": {"architecture": "gpt2_duo_predict"},
    "duo-strict": {"architecture": "gpt2_duo_predict_strict"},
    "plla": {"architecture": "gpt2", "attention": "plla"},
}
PARALLEL = ("mean", "concat")
"""Those whose two tracks can be on two ranks."""


def variant_settings(name: str, **changes: Any) -> dict[str, Any]:
    """The `model` section of a variant, or of any architecture with its own settings left as they are."""
    return SIZES | VARIANTS.get(name, {"architecture": name, "num_layers": 4}) | changes


def variant_config(name: str, **changes: Any) -> Gpt2Config:
    """The configuration of a variant or architecture."""
    return check_model_config(variant_settings(name, **changes), "test")  # type: ignore[return-value]
