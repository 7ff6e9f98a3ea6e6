"""One small float64 training over any layout, and the whole tensors that its ranks hold between them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.optim import AdamW
from zoo_models import zoo_config

from parallax.config.layout import Layout
from parallax.config.models.base import ModelConfig
from parallax.config.models.dual_track import DualTrackConfig
from parallax.data.loader import rank_rows
from parallax.model.head import IGNORE_INDEX, Objective
from parallax.model.noise import row_keys
from parallax.parallel.build import SharedForm, build_native_engine
from parallax.parallel.engine import LossSums
from parallax.parallel.mesh import Mesh, build_mesh
from parallax.parallel.native import NativeEngine
from parallax.parallel.placement import Placement
from parallax.parallel.traffic import Key, Traffic, find_differences
from parallax.runtime.device import Precision

CPU = torch.device("cpu")
_FLOAT32 = Precision("fp32", None, scales_loss=False, reason="tested")
_GLOBAL_BATCH, _LENGTH, _WIDTH = 8, 6, 8
_OBJECTIVE = Objective(label_smoothing=0.1, z_loss=0.01, chunk_tokens=5)
ALONE = Layout(track=1, dp_replicate=1, dp_shard=1)


@dataclass(frozen=True)
class Case:
    """What is trained, and how it is spread."""

    layout: Layout = ALONE
    shared: SharedForm = "auto"
    num_tracks: int = 2
    num_loops: int = 2
    accumulation: int = 1
    overlap: bool = False
    trained: tuple[str, ...] = ("*",)
    """Patterns of the parameters that are not frozen."""
    dropout: float = 0.0
    tie: bool = False
    vocab_size: int = 13
    reshard_after_forward: bool = False
    activation_checkpointing: bool = False
    objective: Objective = _OBJECTIVE
    use_swap: bool = True
    reinject: bool = True
    variant: str = ""
    """Of the GPT-2 family, or an architecture; its shape is its own. Empty: the dual-track model as above."""

    def model(self) -> ModelConfig:
        """The model's configuration."""
        if self.variant:
            sizes = {"hidden_size": _WIDTH, "vocab_size": self.vocab_size}
            return zoo_config(self.variant, **sizes, dropout=self.dropout)
        return DualTrackConfig(
            num_tracks=self.num_tracks,
            num_layers=2,
            num_heads=2,
            num_kv_heads=1,
            hidden_size=_WIDTH,
            intermediate_size=12,
            vocab_size=self.vocab_size,
            max_seq_len=_LENGTH,
            num_loops=self.num_loops,
            use_swap=self.use_swap,
            reinject=self.reinject,
            tie_embeddings=self.tie,
            dropout=self.dropout,
        )


class Part(NamedTuple):
    """Rows of a tensor that one rank holds."""

    first_row: int
    shape: tuple[int, ...]
    rows: Tensor


class Outcome(NamedTuple):
    """What two steps measured, and what they left on one rank."""

    sums: list[tuple[float, ...]]
    norms: list[float]
    gradients: dict[str, Part]
    """Of the first step."""
    weights: dict[str, Part]
    """After both."""
    recorded: list[dict[Key, Traffic]]
    """Of each step, what this rank moved."""
    predicted: dict[Key, Traffic]
    """By the formula, of either step."""


@cache
def mesh_of(layout: Layout) -> Mesh:
    """One mesh for each layout in a process that lives on: every group has threads of its own."""
    return build_mesh(layout, CPU)


def build_engine(case: Case) -> tuple[NativeEngine, Mesh | None]:
    """This rank's engine with its weights, and the ranks' mesh; without other ranks, the whole model's."""
    mesh = mesh_of(case.layout) if case.layout.world_size > 1 else None
    engine = build_native_engine(
        case.model(),
        mesh=mesh,
        device=CPU,
        attention_backend="eager",
        shared=case.shared,
        overlap=case.overlap,
        reshard_after_forward=case.reshard_after_forward,
        dtype=torch.float64,
        precision=_FLOAT32,
        build_optimizer=lambda model: AdamW(
            [p for p in model.parameters() if p.requires_grad], lr=0.1, weight_decay=0.1, fused=True
        ),
        grad_clip=0.05,
        activation_checkpointing=case.activation_checkpointing,
    )
    engine.set_trainable(case.trained)
    engine.materialize(lambda model: model.initialize(7, _widening(engine.placement)))
    return engine, mesh


class Ready(NamedTuple):
    """This rank's part of a training, before or between its steps."""

    case: Case
    mesh: Mesh | None
    engine: NativeEngine
    placement: Placement


def ready(case: Case) -> Ready:
    """This rank's part, with its first weights; without other ranks, the whole."""
    engine, mesh = build_engine(case)
    return Ready(case, mesh, engine, engine.placement)


def own_samples(part: Ready, step: int) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
    """This rank's micro-batches of a step, and the keys of their noise."""
    case, mesh = part.case, part.mesh
    own = rank_rows(_GLOBAL_BATCH, *((mesh.dp_rank, case.layout.dp) if mesh else (0, 1)))
    samples = range(step * _GLOBAL_BATCH, (step + 1) * _GLOBAL_BATCH)
    micro_batches = _windows(step, case.vocab_size)[own].chunk(case.accumulation)
    return micro_batches, row_keys(0, samples[own]).chunk(case.accumulation)


def backward(part: Ready, step: int) -> LossSums:
    """The gradients of this rank's samples of a step."""
    micro_batches, noise = own_samples(part, step)
    return part.engine.forward_backward(micro_batches, part.case.objective, noise)


def train_two_steps(case: Case) -> Outcome:
    """Two clipped AdamW steps of this rank's part; without other ranks, of the whole."""
    part = ready(case)
    engine, placement = part.engine, part.placement
    sums, norms, gradients, recorded, predicted = [], [], {}, [], {}
    for step in range(2):
        predicted = engine.predict_traffic(own_samples(part, step)[0], case.objective)
        with engine.record_traffic() as recorder:
            sums.append(tuple(float(value) for value in backward(part, step)))
            if step == 0:
                gradients = _parts(engine, placement, "grad")
            norms.append(float(engine.clip_and_step(0.1)))
        recorded.append(recorder.traffic)
    return Outcome(sums, norms, gradients, _parts(engine, placement, "weight"), recorded, predicted)


class Differences(NamedTuple):
    """The largest absolute differences between ranks and one process."""

    loss: float
    """Per token, of objective, negative log-likelihood and z, over both steps; inf where a count differs."""
    gradient: float
    norm: float
    weights: float
    ledger: int
    """Keys in which a rank moved, in either step, what the formula does not say."""


@cache
def alone(case: Case) -> Outcome:
    """What one process measures that trains the same model on the same samples, all in one micro-batch."""
    return train_two_steps(
        replace(case, layout=ALONE, shared="auto", accumulation=1, reshard_after_forward=False, overlap=False)
    )


def compare(case: Case, found: list[Outcome]) -> Differences:
    """What every rank measured and holds, beside one process."""
    expected = alone(case)
    tensors = []
    for field in ("gradients", "weights"):
        got, want = whole([getattr(o, field) for o in found]), whole([getattr(expected, field)])
        assert got.keys() == want.keys()
        tensors.append(max(float((got[name] - want[name]).abs().max()) for name in want))
    return Differences(
        loss=max(_loss_difference(o, expected) for o in found),
        gradient=tensors[0],
        norm=max(abs(a - b) for o in found for a, b in zip(o.norms, expected.norms, strict=True)),
        weights=tensors[1],
        ledger=sum(len(find_differences(step, o.predicted)) for o in found for step in o.recorded),
    )


def _loss_difference(found: Outcome, expected: Outcome) -> float:
    worst = 0.0
    for got, want in zip(found.sums, expected.sums, strict=True):
        *losses, correct, tokens = zip(got, want, strict=True)
        if correct[0] != correct[1] or tokens[0] != tokens[1]:
            return float("inf")
        worst = max(worst, *(abs(a - b) / want[-1] for a, b in losses))
    return worst


def whole(parts: list[dict[str, Part]], apart: float = 1e-12) -> dict[str, Tensor]:
    """The unsharded tensors; ranks that hold the same rows may be so far apart, and no row may be missing."""
    found: dict[str, Tensor] = {}
    for name in sorted({name for rank in parts for name in rank}):
        held = [rank[name] for rank in parts if name in rank]
        total = torch.full(held[0].shape, float("nan"), dtype=torch.float64)
        for part in held:
            rows = total[part.first_row : part.first_row + len(part.rows)]
            known = ~rows.isnan()
            torch.testing.assert_close(rows[known], part.rows[known], rtol=0, atol=apart)
            rows.copy_(part.rows)
        assert not total.isnan().any(), f"{name}: rows that no rank holds"
        found[name] = total
    return found


def _widening(placement: Placement) -> Any:
    """Weights far from their small initialisation, so that a wrong gradient shows."""

    def put(name: str, parameter: torch.nn.Parameter, value: Tensor) -> None:
        placement.put(name, parameter, value * (10 if value.dim() > 1 else 1))

    return put


def _parts(engine: NativeEngine, placement: Placement, of: str) -> dict[str, Part]:
    parts = {}
    for name, parameter in engine.model.named_parameters():
        tensor = parameter.grad if of == "grad" else parameter
        if tensor is None:
            continue
        piece = placement.piece(name, tensor)
        parts[name] = Part(piece.first_row, tuple(piece.shape), piece.local.clone())
    return parts


def _windows(step: int, vocab_size: int) -> Tensor:
    generator = torch.Generator().manual_seed(step)
    windows = torch.randint(vocab_size, (_GLOBAL_BATCH, _LENGTH + 1), generator=generator)
    windows[1, 3], windows[6, -1] = IGNORE_INDEX, IGNORE_INDEX
    return windows
