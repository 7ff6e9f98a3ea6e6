"""One short training over a layout of ranks, and the whole tensors that the ranks hold between them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.optim import AdamW

from evaluation.gpu_proof.small_model import random_windows, small_config
from parallax.config.layout import Layout
from parallax.config.models.dual_track import DualTrackConfig
from parallax.data.loader import rank_rows
from parallax.model.head import Objective
from parallax.model.noise import row_keys
from parallax.model.registry import build_model
from parallax.parallel.build import SharedForm, build_native_engine
from parallax.parallel.exchange import GroupExchange
from parallax.parallel.mesh import Axis, Mesh, build_mesh
from parallax.parallel.native import NativeEngine
from parallax.parallel.placement import Placement
from parallax.parallel.vocabulary import SplitVocabulary
from parallax.runtime.device import resolve_precision

_GLOBAL_BATCH = 4
_STEPS = 2
_OBJECTIVE = Objective(label_smoothing=0.1, z_loss=1e-3)
ALONE = Layout(track=1, dp_replicate=1, dp_shard=1)


@dataclass(frozen=True)
class Case:
    """How a training is spread."""

    name: str
    layout: Layout = ALONE
    shared: SharedForm = "auto"
    forced: Literal["", "fsdp", "tracks"] = ""
    """What is made to go through a group of one rank, where a run would leave it out."""


class Outcome(NamedTuple):
    """What two steps measured, and what they left on one rank."""

    losses: list[float]
    norms: list[float]
    gradients: dict[str, tuple[int, Tensor]]
    """Name -> first row held here, and the rows; of the first step, on the CPU."""
    weights: dict[str, tuple[int, Tensor]]
    """Likewise, after all steps."""


TWO_RANKS = (
    Case("track 2, vocabulary split", Layout(track=2, dp_replicate=1, dp_shard=1), "vocab_split"),
    Case("track 2, shared copied", Layout(track=2, dp_replicate=1, dp_shard=1), "copy_reduce"),
    Case("DDP 2", Layout(track=1, dp_replicate=2, dp_shard=1)),
    Case("FSDP2 2", Layout(track=1, dp_replicate=1, dp_shard=2)),
)
ONE_RANK = (
    Case("FSDP2 over a mesh of one", forced="fsdp"),
    Case("tracks and vocabulary through a group of one", forced="tracks"),
)


def train(case: Case, device: torch.device, dtype: torch.dtype, *, quick: bool) -> Outcome:
    """Two clipped AdamW steps of this rank's part; a case of one rank that forces nothing needs no group."""
    needs_group = case.layout.world_size > 1 or bool(case.forced)
    mesh = build_mesh(case.layout, device) if needs_group else None
    engine = _build(case, small_config(quick=quick), mesh, device, dtype)
    placement = engine.placement
    engine.materialize(lambda model: model.initialize(7, placement.put))
    rows = rank_rows(_GLOBAL_BATCH, mesh.dp_rank if mesh else 0, case.layout.dp)
    losses, norms, gradients = [], [], {}
    for number in range(_STEPS):
        windows = random_windows(engine.model.config, _GLOBAL_BATCH, seed=number)[rows]
        sums = engine.forward_backward([windows], _OBJECTIVE, [row_keys(0, range(len(windows)))])
        losses.append(sums.objective.item() / sums.tokens)
        if number == 0:
            gradients = _held(engine, placement, of="gradients")
        norms.append(engine.clip_and_step(1e-3).item())
    return Outcome(losses, norms, gradients, _held(engine, placement, of="weights"))


def whole(parts: Sequence[dict[str, tuple[int, Tensor]]]) -> dict[str, Tensor]:
    """The unsharded tensors of what the ranks hold.

    Raises:
        ValueError: rows that no rank holds.
    """
    found = {}
    for name in sorted({name for rank in parts for name in rank}):
        held = [rank[name] for rank in parts if name in rank]
        num_rows = max(first + len(rows) for first, rows in held)
        total = torch.full((num_rows, *held[0][1].shape[1:]), float("nan"), dtype=torch.float64)
        for first, rows in held:
            total[first : first + len(rows)] = rows
        if total.isnan().any():
            raise ValueError(f"{name}: rows that no rank holds")
        found[name] = total
    return found


def _build(
    case: Case, config: DualTrackConfig, mesh: Mesh | None, device: torch.device, dtype: torch.dtype
) -> NativeEngine:
    if case.forced == "tracks":
        assert mesh is not None
        return _build_through_group(config, mesh, device, dtype)
    if case.forced == "fsdp":
        assert mesh is not None
        mesh = replace(mesh, fsdp_mesh=mesh.device_mesh[Axis.DP_SHARD])
    return build_native_engine(
        config,
        mesh=mesh,
        device=device,
        attention_backend="eager",
        shared=case.shared,
        dtype=dtype,
        precision=resolve_precision("fp32", device),
        build_optimizer=_optimizer,
        grad_clip=1.0,
    )


def _build_through_group(
    config: DualTrackConfig, mesh: Mesh, device: torch.device, dtype: torch.dtype
) -> NativeEngine:
    """Every track and row is here, and what tracks exchange still goes through the group's collectives."""
    vocabulary = SplitVocabulary(config.vocab_size, mesh.track)
    model = build_model(
        config,
        attention_backend="eager",
        device=device,
        exchange=GroupExchange(config.num_tracks, mesh.track),
        vocabulary=vocabulary,
    )
    return NativeEngine(
        model.to(dtype=dtype),
        device=device,
        mesh=mesh,
        precision=resolve_precision("fp32", device),
        build_optimizer=_optimizer,
        grad_clip=1.0,
    )


def alone(case: Case) -> Case:
    """The same training in one process."""
    return replace(case, layout=ALONE, shared="auto", forced="")


def _optimizer(model: torch.nn.Module) -> AdamW:
    return AdamW(model.parameters(), lr=1e-3, weight_decay=0.1, fused=True)


def _held(engine: NativeEngine, placement: Placement, *, of: str) -> dict[str, tuple[int, Tensor]]:
    parts = {}
    for name, parameter in engine.model.named_parameters():
        tensor = parameter.grad if of == "gradients" else parameter
        assert tensor is not None, name
        piece = placement.piece(name, tensor)
        parts[name] = (piece.first_row, piece.local.detach().double().cpu().clone())
    return parts
