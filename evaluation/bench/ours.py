from functools import partial

import torch
from torch import Tensor

from parallax.config.run import RunConfig
from parallax.model.head import Objective
from parallax.model.noise import row_keys
from parallax.model.registry import build_model
from parallax.parallel.native import NativeEngine
from parallax.runtime.device import PrecisionName, resolve_precision
from parallax.train.optimizer import build_optimizer

_CPU = torch.device("cpu")


class Trainer:
    """Our training step without data and journal: the engine that a run uses."""

    def __init__(
        self, config: RunConfig, precision: PrecisionName, compiled: bool, device: torch.device = _CPU
    ) -> None:
        self.engine = NativeEngine(
            build_model(config.model, attention_backend=config.runtime.attention_backend, device=device),
            device=device,
            precision=resolve_precision(precision, device),
            build_optimizer=partial(build_optimizer, config=config.optim),
            grad_clip=config.optim.grad_clip,
            activation_checkpointing=config.train.activation_checkpointing,
            compile_blocks=compiled,
        )
        self.engine.materialize(lambda model: model.initialize(config.seed))
        self._objective = Objective(chunk_tokens=config.loss.chunk_tokens)
        self._lr = config.optim.lr

    def step(self, windows: Tensor) -> float:
        """One update; the gradient norm."""
        self.engine.forward_backward([windows], self._objective, [row_keys(0, range(len(windows)))])
        return self.engine.clip_and_step(self._lr).item()


def random_windows(config: RunConfig) -> Tensor:
    """One micro-batch of windows (B, T + 1)."""
    generator = torch.Generator().manual_seed(config.seed)
    shape = (config.train.micro_batch, config.model.max_seq_len + 1)
    return torch.randint(config.model.vocab_size, shape, generator=generator)
