"""One small float64 training over any layout, and the whole tensors that its ranks hold between them."""

from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.optim import AdamW

from parallax.config.layout import Layout
from parallax.config.model import DualTrackConfig
from parallax.data.loader import rank_rows
from parallax.model.head import IGNORE_INDEX, Objective
from parallax.parallel.build import SharedForm, build_native_engine
from parallax.parallel.mesh import Mesh, build_mesh
from parallax.parallel.native import NativeEngine
from parallax.parallel.placement import Placement
from parallax.runtime.device import Precision

CPU = torch.device("cpu")
_FLOAT32 = Precision("fp32", None, scales_loss=False, reason="tested")
_GLOBAL_BATCH, _LENGTH = 8, 6
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
    tie: bool = False
    vocab_size: int = 13
    reshard_after_forward: bool = False
    activation_checkpointing: bool = False
    objective: Objective = _OBJECTIVE

    def model(self) -> DualTrackConfig:
        """The model's configuration."""
        return DualTrackConfig(
            num_tracks=self.num_tracks,
            num_layers=2,
            num_heads=2,
            num_kv_heads=1,
            hidden_size=8,
            intermediate_size=12,
            vocab_size=self.vocab_size,
            max_seq_len=_LENGTH,
            num_loops=self.num_loops,
            tie_embeddings=self.tie,
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


@cache
def mesh_of(layout: Layout) -> Mesh:
    """One mesh for each layout in a process that lives on: every group has threads of its own."""
    return build_mesh(layout, CPU)


def train_two_steps(case: Case) -> Outcome:
    """Two clipped AdamW steps of this rank's part; without other ranks, of the whole."""
    mesh = mesh_of(case.layout) if case.layout.world_size > 1 else None
    engine = build_native_engine(
        case.model(),
        mesh=mesh,
        device=CPU,
        attention_backend="eager",
        shared=case.shared,
        reshard_after_forward=case.reshard_after_forward,
        dtype=torch.float64,
        precision=_FLOAT32,
        build_optimizer=lambda model: AdamW(model.parameters(), lr=0.1, weight_decay=0.1, fused=True),
        grad_clip=0.05,
        activation_checkpointing=case.activation_checkpointing,
    )
    placement = engine.placement
    assert placement is not None
    engine.materialize(lambda model: model.initialize(7, _widening(placement)))
    dp_rank, dp = (mesh.dp_rank, case.layout.dp) if mesh else (0, 1)
    sums, norms, gradients = [], [], {}
    for step in range(2):
        batch = _windows(step, case.vocab_size)[rank_rows(_GLOBAL_BATCH, dp_rank, dp)]
        micro_batches = batch.chunk(case.accumulation)
        measured = engine.forward_backward(micro_batches, case.objective, [0] * len(micro_batches))
        sums.append(tuple(float(value) for value in measured))
        if step == 0:
            gradients = _parts(engine, placement, "grad")
        norms.append(float(engine.clip_and_step(0.1)))
    return Outcome(sums, norms, gradients, _parts(engine, placement, "weight"))


def whole(parts: list[dict[str, Part]]) -> dict[str, Tensor]:
    """The unsharded tensors; ranks that hold the same rows must agree on them, and no row may be missing."""
    found: dict[str, Tensor] = {}
    for name in sorted({name for rank in parts for name in rank}):
        held = [rank[name] for rank in parts if name in rank]
        total = torch.full(held[0].shape, float("nan"), dtype=torch.float64)
        for part in held:
            rows = total[part.first_row : part.first_row + len(part.rows)]
            known = ~rows.isnan()
            torch.testing.assert_close(rows[known], part.rows[known], rtol=0, atol=1e-12)
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
        assert tensor is not None, name
        piece = placement.piece(name, tensor)
        parts[name] = Part(piece.first_row, tuple(piece.shape), piece.local.clone())
    return parts


def _windows(step: int, vocab_size: int) -> Tensor:
    generator = torch.Generator().manual_seed(step)
    windows = torch.randint(vocab_size, (_GLOBAL_BATCH, _LENGTH + 1), generator=generator)
    windows[1, 3], windows[6, -1] = IGNORE_INDEX, IGNORE_INDEX
    return windows
