"""The GPT-2 family, small enough for float64, with weights that hide nothing."""

from typing import Any

from small_models import fill_generously

from parallax.config.load import check_model_config
from parallax.config.models.gpt2 import Gpt2Config
from parallax.model.decoder import Decoder
from parallax.model.registry import build_model, materialize

SIZES: dict[str, Any] = {
    "num_layers": 2,
    "num_heads": 2,
    "hidden_size": 12,
    "intermediate_size": 20,
    "vocab_size": 11,
    "max_seq_len": 8,
    "norm_eps": 0.05,
}
VARIANTS: dict[str, dict[str, Any]] = {
    "gpt2": {"architecture": "gpt2"},
    "drift": {"architecture": "gpt2_drift_diffusion", "diffusion_std": 0.0},
    "diffusion": {"architecture": "gpt2_drift_diffusion", "drift": False},
    "drift, diffusion": {"architecture": "gpt2_drift_diffusion", "diffusion_std": [0.3, 0.1]},
    "merged drift, diffusion": {"architecture": "gpt2_drift_diffusion", "per_head": False},
    "mean": {"architecture": "gpt2_parallel", "num_layers": 4},
    "concat": {"architecture": "gpt2_parallel", "num_layers": 4, "merge": "concat"},
    "LR": {"architecture": "gpt2_rotating_head"},
    "LR norm": {"architecture": "gpt2_rotating_head", "use_norm": True},
    "GP": {"architecture": "gpt2_rotating_head", "frequencies": "GP", "rope_theta": 50.0},
    "GP norm": {"architecture": "gpt2_rotating_head", "frequencies": "GP", "use_norm": True},
    "duo": {"architecture": "gpt2_duo_predict"},
    "duo strict": {"architecture": "gpt2_duo_predict_strict"},
}
PLLA_VARIANTS: dict[str, dict[str, Any]] = {
    "plla": {"architecture": "gpt2", "attention": "plla"},
    "plla concat": VARIANTS["concat"] | {"attention": "plla"},
    "plla LR": VARIANTS["LR"] | {"attention": "plla"},
}
"""With another attention, whose equations are not the family's: alone, on two tracks, and turned."""


def zoo_settings(name: str, **changes: Any) -> dict[str, Any]:
    """The `model` section of a variant, or of any architecture with its own settings left as they are."""
    of_variant = (VARIANTS | PLLA_VARIANTS).get(name, {"architecture": name, "num_layers": 4})
    return SIZES | of_variant | changes


def zoo_config(name: str, **changes: Any) -> Gpt2Config:
    """A configuration of the family, by its name above or an architecture's."""
    return check_model_config(zoo_settings(name, **changes), "test")  # type: ignore[return-value]


def zoo_model(config: Gpt2Config, *, seed: int = 0, backend: str = "auto") -> Decoder:
    """A float64 model with every parameter drawn large."""
    model = materialize(build_model(config, attention_backend=backend).double(), "cpu", seed=seed)
    fill_generously(model, seed)
    return model
