from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from parallax.config.run import RunConfig
from parallax.data.loader import Loader, rank_rows
from parallax.model.head import Objective
from parallax.model.noise import row_keys
from parallax.parallel.engine import Engine, LossSums
from parallax.parallel.traffic import journal_values
from parallax.train.guard import FiniteGuard
from parallax.train.progress import Progress
from parallax.train.schedule import learning_rate


@dataclass(frozen=True)
class StepResult:
    """What one optimizer step measured; tensors are 0-dim and still on the device."""

    sums: LossSums
    """Loss sums over the global batch, before the update."""
    grad_norm: Tensor
    """Global gradient norm before clipping."""
    lr: float
    """Learning rate of the update."""
    traffic: Mapping[str, Any]
    """With `train.ledger`, what this rank sent beside the formula's prediction; see `journal_values`."""


def train_step(
    config: RunConfig,
    total_steps: int,
    flops_per_token: int,
    engine: Engine,
    loader: Loader,
    guard: FiniteGuard,
    progress: Progress,
    dp: tuple[int, int] = (0, 1),
) -> StepResult:
    """One optimizer step: read this rank's rows of a global batch, accumulate gradients, clip, update, count.

    The loss is normalised by the valid tokens of the whole global batch, so cutting it into other
    micro-batches changes nothing but rounding. Nothing waits for the device here.
    """
    step = progress.step + 1
    objective = Objective(
        label_smoothing=config.loss.label_smoothing,
        z_loss=config.loss.z_loss,
        chunk_tokens=config.loss.chunk_tokens,
    )

    rows = rank_rows(config.train.global_batch, *dp)
    samples = range(loader.cursor + rows.start, loader.cursor + rows.stop)
    micro_batches = torch.split(loader.next_rows(config.train.global_batch, *dp), config.train.micro_batch)
    noise = torch.split(row_keys(config.seed, samples), config.train.micro_batch)

    lr = learning_rate(step, total_steps, config.optim)
    predicted = engine.predict_traffic(micro_batches, objective) if config.train.ledger else {}
    with engine.record_traffic() if config.train.ledger else nullcontext() as recorder:
        sums = engine.forward_backward(micro_batches, objective, noise)
        grad_norm = engine.clip_and_step(lr)

    # Under fp16 an overflowing gradient is an ordinary event, for which the scaler skips the update.
    watched = (sums.objective,) if engine.scales_loss else (sums.objective, grad_norm)
    guard.watch(step, *watched)

    progress.step = step
    progress.tokens += sums.tokens
    progress.flops += sums.tokens * flops_per_token
    return StepResult(sums, grad_norm, lr, journal_values(recorder.traffic, predicted) if recorder else {})
