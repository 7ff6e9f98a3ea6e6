"""Native engines over float64 models that are small, with weights far from their initialisation."""

from typing import Any

import torch
from torch import Tensor
from torch.optim import SGD

from parallax.config.models.dual_track import DualTrackConfig
from parallax.model.dual_track import DualTrack
from parallax.model.head import IGNORE_INDEX, Objective
from parallax.model.noise import row_keys
from parallax.model.registry import build_model
from parallax.parallel.engine import LossSums
from parallax.parallel.native import NativeEngine
from parallax.runtime.device import Precision

CPU = torch.device("cpu")
FLOAT32 = Precision("fp32", None, scales_loss=False, reason="tested")
FLOAT16 = Precision("fp16", torch.float16, scales_loss=True, reason="tested")
BFLOAT16 = Precision("bf16", torch.bfloat16, scales_loss=False, reason="tested")
PLAIN = Objective()
_ENGINE_OPTIONS = (
    "grad_clip",
    "build_optimizer",
    "activation_checkpointing",
    "compile_blocks",
    "separating_eos_id",
)


def small_engine(
    *, precision: Precision = FLOAT32, dtype: torch.dtype = torch.float64, seed: int = 0, **changes: Any
) -> NativeEngine:
    """An engine with plain SGD, so that an update is the learning rate times the clipped gradient.

    Keyword arguments that are the engine's go to it, all others into the model's configuration.
    """
    sizes: dict[str, Any] = {"num_layers": 2, "num_heads": 2, "hidden_size": 8, "intermediate_size": 12}
    sizes |= {"vocab_size": 13, "max_seq_len": 6}
    options: dict[str, Any] = {"grad_clip": 0.0, "build_optimizer": lambda model: SGD(model.parameters(), lr=0.1)}
    for name, value in changes.items():
        own = name in _ENGINE_OPTIONS
        (options if own else sizes)[name] = value
    engine = NativeEngine(build_model(DualTrackConfig(**sizes)), device=CPU, precision=precision, **options)
    engine.materialize(lambda model: _fill(model, dtype, seed))
    return engine


def _fill(model: DualTrack, dtype: torch.dtype, seed: int) -> None:
    model.to(dtype)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(1.0 if parameter.dim() == 1 else 0.0, 0.4, generator=generator)


def random_windows(batch: int, *, length: int = 6, seed: int = 1) -> Tensor:
    """(B, T + 1) token ids."""
    return torch.randint(13, (batch, length + 1), generator=torch.Generator().manual_seed(seed))


def shortened(windows: Tensor, lengths: list[int]) -> Tensor:
    """The windows, of which row i has only `lengths[i]` valid targets."""
    windows = windows.clone()
    for row, length in zip(windows, lengths, strict=True):
        row[length + 1 :] = IGNORE_INDEX
    return windows


def forward_backward(engine: NativeEngine, *micro_batches: Tensor, objective: Objective = PLAIN) -> LossSums:
    """With the noise of samples 0, 1, 2 …"""
    sizes = [len(windows) for windows in micro_batches]
    return engine.forward_backward(micro_batches, objective, row_keys(0, range(sum(sizes))).split(sizes))


def gradients(engine: NativeEngine) -> dict[str, Tensor]:
    """Copies, by parameter name."""
    return {n: p.grad.clone() for n, p in engine.model.named_parameters() if p.grad is not None}


def weights(engine: NativeEngine) -> dict[str, Tensor]:
    """Copies, by parameter name."""
    return {name: parameter.detach().clone() for name, parameter in engine.model.named_parameters()}
