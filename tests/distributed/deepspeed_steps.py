"""A small run trained by any engine over any layout, and what its ranks measure and hold."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

import torch
from parity import ALONE, CPU, Part, mesh_of
from zoo_models import zoo_settings

from parallax.config.layout import Layout
from parallax.config.load import check_config
from parallax.config.run import RunConfig
from parallax.data.loader import rank_rows
from parallax.model.head import IGNORE_INDEX, Objective
from parallax.model.noise import row_keys
from parallax.parallel.engine import Engine
from parallax.runtime.device import resolve_precision
from parallax.runtime.piece import Piece
from parallax.train.engines import build_engine

_GLOBAL_BATCH, _LENGTH, _VOCAB = 8, 6, 13
_OBJECTIVE = Objective(label_smoothing=0.1, z_loss=0.01, chunk_tokens=5)
NUM_STEPS = 3


@dataclass(frozen=True)
class Case:
    """What is trained, by whom, and how it is spread."""

    layout: Layout = ALONE
    engine: str = "deepspeed"
    stage: int = 2
    precision: str = "fp32"
    shared: str = "auto"
    accumulation: int = 1
    tie: bool = False
    offload: bool = False
    offload_parameters: bool = False
    checkpointing: bool = False
    dropout: float = 0.0
    grad_clip: float = 0.05
    freeze: tuple[str, ...] = ()
    marked: bool = True
    """Whether DeepSpeed is told which parameters only one rank of the track axis holds."""
    variant: str = ""
    """Of the GPT-2 family, whose shape is its own; empty: the dual-track model."""
    settings: str | None = None
    """A JSON file of DeepSpeed's own."""

    def config(self) -> RunConfig:
        """The run's configuration."""
        return check_config(
            {
                "seed": 7,
                "model": self._model(),
                "data": {"path": "nowhere"},
                "train": {
                    "max_steps": 9,
                    "global_batch": _GLOBAL_BATCH,
                    "micro_batch": _GLOBAL_BATCH // self.layout.dp // self.accumulation,
                    "precision": self.precision,
                    "activation_checkpointing": self.checkpointing,
                },
                "optim": {"grad_clip": self.grad_clip, "eps": 1e-4},
                "parallel": {"track": self.layout.track, "engine": self.engine, "shared": self.shared},
                "deepspeed": {
                    "zero_stage": self.stage,
                    "offload_optimizer": self.offload,
                    "offload_parameters": self.offload_parameters,
                    "settings": self.settings,
                },
                "runtime": {"attention_backend": "eager"},
            },
            source="the test",
        )

    def _model(self) -> dict[str, Any]:
        if self.variant:
            return zoo_settings(self.variant, vocab_size=_VOCAB, dropout=self.dropout)
        return {
            "num_layers": 2,
            "num_heads": 2,
            "num_kv_heads": 1,
            "hidden_size": 8,
            "intermediate_size": 12,
            "vocab_size": _VOCAB,
            "max_seq_len": _LENGTH,
            "num_loops": 3,
            "tie_embeddings": self.tie,
            "dropout": self.dropout,
        }


class Outcome(NamedTuple):
    """What each step measured, and what this rank holds of the run at its end."""

    losses: list[float]
    norms: list[float]
    parameter_norm: float
    pieces: dict[str, Part]


def build(case: Case) -> Engine:
    """This rank's engine with its first weights."""
    config = case.config()
    if case.precision == "fp16":
        _allow_fp16()
    engine = build_engine(
        config,
        CPU,
        resolve_precision(case.precision, CPU),
        mesh=mesh_of(case.layout) if case.layout.world_size > 1 else None,
        eos_id=0,
    )
    if case.freeze:
        names = [name for name, _ in engine.model.named_parameters()]
        engine.set_trainable([name for name in names if name not in case.freeze])
    with _marks(case.marked):
        engine.materialize(lambda model: model.initialize(config.seed, _widened(engine)))
    return engine


def train(case: Case, engine: Engine, steps: range) -> tuple[list[float], list[float]]:
    """Losses a token and gradient norms of some steps."""
    losses, norms = [], []
    for step in steps:
        own = rank_rows(_GLOBAL_BATCH, *_dp(case))
        samples = range(step * _GLOBAL_BATCH, (step + 1) * _GLOBAL_BATCH)
        sums = engine.forward_backward(
            _windows(step)[own].chunk(case.accumulation),
            _OBJECTIVE,
            row_keys(0, samples[own]).chunk(case.accumulation),
        )
        norms.append(float(engine.clip_and_step(0.01)))
        losses.append(float(sums.objective) / sums.tokens)
    return losses, norms


def outcome(case: Case) -> Outcome:
    """What this rank measures over a few steps from the first weights."""
    engine = build(case)
    losses, norms = train(case, engine, range(NUM_STEPS))
    return Outcome(losses, norms, float(engine.parameter_norm()), held(engine))


class Overflow(NamedTuple):
    """What a step leaves whose gradients do not fit into fp16."""

    norm: float
    loss_scale: float
    moved: bool
    """Whether a weight changed."""
    num_moments: int


def overflow(case: Case, loss_scale: float) -> Overflow:
    """One step from the first weights, with a scale that makes it overflow."""
    engine = build(case)
    engine.load_extra_state(dict(engine.extra_state()) | {"scale": loss_scale})
    before = held(engine)
    _, [norm] = train(case, engine, range(1))
    after = held(engine)
    moved = any(not torch.equal(before[name].rows, after[name].rows) for name in before)
    return Overflow(norm, engine.loss_scale, moved, len(after) - len(before))


def held(engine: Engine) -> dict[str, Part]:
    """What this rank holds of weights and optimizer state."""
    pieces = {**engine.weight_pieces(), **engine.optimizer_pieces()[0]}
    return {name: _part(piece) for name, piece in pieces.items()}


@cache
def alone(case: Case) -> Outcome:
    """What one process of the native engine measures."""
    return outcome(case)


def _part(piece: Piece) -> Part:
    rows = piece.local.clone().double()
    return Part(piece.first_row, tuple(piece.shape), rows) if piece.shape else Part(0, (1,), rows.view(1))


def _dp(case: Case) -> tuple[int, int]:
    return (mesh_of(case.layout).dp_rank, case.layout.dp) if case.layout.world_size > 1 else (0, 1)


def _widened(engine: Engine) -> Any:
    def put(name: str, parameter: torch.nn.Parameter, value: torch.Tensor) -> None:
        engine.placement.put(name, parameter, value * (10 if value.dim() > 1 else 1))

    return put


def _allow_fp16() -> None:
    """DeepSpeed asks whether the CPU multiplies fp16 in hardware; PyTorch multiplies it on all."""
    from deepspeed.accelerator import get_accelerator

    get_accelerator().is_fp16_supported = lambda: True


@contextmanager
def _marks(wanted: bool) -> Iterator[None]:
    """Without them, DeepSpeed believes that all ranks of the track axis hold the same parameters."""
    from parallax.parallel.deepspeed.engine import DeepSpeedEngine

    mark = DeepSpeedEngine._mark
    if not wanted:
        DeepSpeedEngine._mark = lambda self: None  # type: ignore[method-assign]
    try:
        yield
    finally:
        DeepSpeedEngine._mark = mark  # type: ignore[method-assign]


def _windows(step: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(step)
    windows = torch.randint(_VOCAB, (_GLOBAL_BATCH, _LENGTH + 1), generator=generator)
    windows[1, 3], windows[6, -1] = IGNORE_INDEX, IGNORE_INDEX
    return windows
