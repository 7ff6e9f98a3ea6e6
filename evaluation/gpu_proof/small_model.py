"""A model small enough to compare every gradient of it, and the engine that trains it as a run does."""

import json
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from parallax.config.models.base import ModelConfig
from parallax.config.models.dual_track import DualTrackConfig
from parallax.config.sections import OptimConfig
from parallax.model.head import Objective
from parallax.model.noise import row_keys
from parallax.model.registry import build_model
from parallax.parallel.engine import LossSums
from parallax.parallel.native import NativeEngine
from parallax.runtime.device import PrecisionName, resolve_precision
from parallax.train.optimizer import build_optimizer

_OBJECTIVE = Objective(label_smoothing=0.1, z_loss=1e-4)
CPU = torch.device("cpu")


def small_config(*, quick: bool, **changes: Any) -> DualTrackConfig:
    """Two tracks, two passes, grouped heads, a SwiGLU width that products must fill up."""
    sizes = {"hidden_size": 64, "num_heads": 2, "intermediate_size": 85, "vocab_size": 257, "max_seq_len": 64}
    if not quick:
        sizes = {
            "hidden_size": 256,
            "num_heads": 4,
            "intermediate_size": 341,
            "vocab_size": 4001,
            "max_seq_len": 256,
        }
    whole = {"num_layers": 2, "num_kv_heads": sizes["num_heads"] // 2, **sizes, **changes}
    return DualTrackConfig(**whole)


def build_engine(
    config: ModelConfig,
    device: torch.device,
    precision: PrecisionName = "fp32",
    *,
    dtype: torch.dtype = torch.float32,
    seed: int = 7,
    **options: Any,
) -> NativeEngine:
    """A materialised engine; the same seed gives the same weights on every device."""
    model = build_model(config, device=device).to(dtype=dtype)
    engine = NativeEngine(
        model,
        device=device,
        precision=resolve_precision(precision, device),
        build_optimizer=lambda filled: build_optimizer(filled, OptimConfig()),
        grad_clip=1.0,
        **options,
    )
    engine.materialize(lambda model: model.initialize(seed))
    return engine


def random_windows(config: ModelConfig, rows: int, seed: int = 1) -> Tensor:
    """(rows, T + 1) token ids on the CPU, as a loader gives them."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(config.vocab_size, (rows, config.max_seq_len + 1), generator=generator)


def forward_backward(engine: NativeEngine, windows: Tensor, first_sample: int = 0) -> LossSums:
    """One micro-batch."""
    return engine.forward_backward(
        [windows], _OBJECTIVE, [row_keys(0, range(first_sample, first_sample + len(windows)))]
    )


def gradients(engine: NativeEngine) -> dict[str, Tensor]:
    """Copies in float64 on the CPU, without the loss scale."""
    scale = engine.loss_scale
    named = engine.model.named_parameters()
    return {name: p.grad.double().cpu() / scale for name, p in named if p.grad is not None}


def weights(engine: NativeEngine) -> dict[str, Tensor]:
    """Copies on the CPU."""
    return {name: p.detach().cpu().clone() for name, p in engine.model.named_parameters()}


def scaler_state(engine: NativeEngine) -> dict[str, Any]:
    """The loss scale and its counter, as a checkpoint keeps them."""
    state: dict[str, Any] = json.loads(json.dumps(dict(engine.extra_state())))
    return state


def relative_error(found: Tensor, expected: Tensor) -> float:
    """|found - expected| / |expected| in the Euclidean norm, in float64."""
    wanted = expected.detach().double().cpu()
    size = wanted.norm().item() or 1.0
    return (found.detach().double().cpu() - wanted).norm().item() / size


def worst_error(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> tuple[float, str]:
    """The largest relative error of a tensor, NaN first, and its name.

    Raises:
        ValueError: the names differ.
    """
    if found.keys() != expected.keys():
        raise ValueError(f"tensors of other names: {sorted(found.keys() ^ expected.keys())}")
    errors = {name: relative_error(found[name], expected[name]) for name in expected}
    name = max(errors, key=lambda each: (errors[each] != errors[each], errors[each]))
    return errors[name], name
