import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from parallax.config.layout import Layout, resolve_layout
from parallax.config.run import RunConfig
from parallax.errors import ConfigError
from parallax.metrics.allocations import AllocationLog
from parallax.model.head import Objective
from parallax.model.noise import row_keys
from parallax.model.registry import build_model
from parallax.parallel.engine import Engine
from parallax.parallel.ledger import LedgerRecorder
from parallax.parallel.mesh import build_mesh
from parallax.parallel.rehearsal import joined_as, without_memory
from parallax.train.engines import build_engine
from parallax.train.freeze import trainable_names
from parallax.train.planning.choices import is_for_gpu, settle_accumulation, settle_choices
from parallax.train.planning.rank_plan import PHASES, RankPlan
from parallax.train.planning.zero import without_host, zero_purposes, zero_surroundings

_CPU = torch.device("cpu")
_ALL_LOGITS = 1 << 62
_MICRO_BATCHES = 3
"""The first gathers, the last reduces, and all between them are alike."""
_SEPARATING_ID = 0
_STATES = "optimizer states"
_PURPOSES = {
    "fsdp.all_gather_copy_in.default": "gathered weights",
    "fsdp.split_with_sizes_copy.default": "gathered weights",
    "fsdp.chunk_cat.default": "reduction buffers",
    "c10d._reduce_scatter_base_.default": "reduction buffers",
}


@dataclass(frozen=True)
class _Stage:
    """An engine, and what looks on while it rehearses."""

    engine: Engine
    log: AllocationLog
    traffic: LedgerRecorder


def plan_rank(config: RunConfig, *, world_size: int, rank: int) -> RankPlan:
    """Rehearses an optimizer step of a rank among others that do not exist, over tensors without memory.

    The engine, PyTorch's or DeepSpeed's, its transforms and its optimizer are those of a run; only memory, data
    and the other ranks are not there. Operations are the CPU's; where the run is not meant for a CPU
    (`runtime.device`), the attention backend, the precision and the head's sweeps are those that a GPU would get.

    Raises:
        BackendError: the run asks for DeepSpeed, which is not installed.
        ConfigError: the layout is impossible, or the rank is not one of it.
    """
    started = time.perf_counter()
    layout = resolve_layout(config.parallel, config.model.num_tracks, world_size)
    if not 0 <= rank < world_size:
        raise ConfigError(f"--rank {rank}: the ranks of --world-size {world_size} are 0 to {world_size - 1}")
    accumulation, notes = settle_accumulation(config, layout)
    backend, precision, choices = settle_choices(config, layout)
    rehearsed = _as_rehearsed(config, layout, backend, accumulation)
    log = AllocationLog({**_PURPOSES, **zero_purposes(config)})
    with ExitStack() as stack:
        stack.enter_context(zero_surroundings(config))
        stack.enter_context(joined_as(rank, world_size))
        engine = build_engine(rehearsed, _CPU, precision, mesh=build_mesh(layout, _CPU), eos_id=_SEPARATING_ID)
        if config.train.freeze:
            # A pattern may name tracks of other ranks only.
            engine.set_trainable(trainable_names(build_model(config.model), config.train.freeze))
        parameters = _count_parameters(engine)
        stack.enter_context(without_memory())
        stack.enter_context(log)
        traffic = stack.enter_context(engine.record_traffic())
        _rehearse(rehearsed, _Stage(engine, log, traffic), accumulation)
        if config.parallel.engine != "deepspeed":
            parameters = _count_parameters(engine)  # FSDP2 has divided them
    memory = {phase: kinds for phase, kinds in log.peaks(_STATES).items() if phase in PHASES}
    between = accumulation - _MICRO_BATCHES + 1
    return without_host(
        config,
        RankPlan(
            layout=layout,
            rank=rank,
            global_batch=accumulation * config.train.micro_batch * layout.dp,
            accumulation=accumulation,
            choices=choices,
            notes=notes,
            parameters=parameters,
            memory=memory,
            collectives=[
                (c, between if c.part == 2 and between > 1 else 1)
                for c in traffic.collectives
                if c.ranks > 1 and c.payload_bytes
            ],
            seconds=time.perf_counter() - started,
        ),
    )


def _as_rehearsed(config: RunConfig, layout: Layout, backend: str, accumulation: int) -> RunConfig:
    """The run with a batch that divides; neither compiled nor overlapped, for which nothing is planned."""
    changes: dict[str, dict[str, Any]] = {
        "runtime": {"attention_backend": backend},
        "train": {"compile": "off", "global_batch": accumulation * config.train.micro_batch * layout.dp},
        "parallel": {"overlap": False},
    }
    sections = {name: getattr(config, name).model_copy(update=change) for name, change in changes.items()}
    return config.model_copy(update=sections)


def _rehearse(config: RunConfig, stage: _Stage, accumulation: int) -> None:
    engine, log = stage.engine, stage.log
    # DDP makes its buckets at the start.
    with log.phase("start", "reduction buffers"):
        engine.materialize(lambda model: None)
    objective = Objective(
        label_smoothing=config.loss.label_smoothing,
        z_loss=config.loss.z_loss,
        chunk_tokens=config.loss.chunk_tokens,
        cached_logits=_ALL_LOGITS if is_for_gpu(config) else None,
    )
    # ZeRO-3 learns in the first step what to gather ahead in the next ones.
    for _ in range(2 if config.parallel.engine == "deepspeed" else 1):
        stage.traffic.clear()
        stage.traffic.part = 0
        _rehearse_step(config, stage, objective, min(accumulation, _MICRO_BATCHES))


def _rehearse_step(config: RunConfig, stage: _Stage, objective: Objective, count: int) -> None:
    engine, log = stage.engine, stage.log
    shape = (config.train.micro_batch, config.model.max_seq_len + 1)
    with log.phase("forward", "activations"), _watched(stage):
        windows = [torch.empty(shape, dtype=torch.long) for _ in range(count)]
        engine.forward_backward(windows, objective, [row_keys(0, range(len(rows))) for rows in windows])
    _tag_lasting(stage)
    with log.phase("update", "working memory"):
        engine.clip_and_step(config.optim.lr)
    _tag_lasting(stage)  # there are moments now, and collectives have renamed what they wrote


def _tag_lasting(stage: _Stage) -> None:
    for kind, tensors in stage.engine.lasting().items():
        stage.log.tag(tensors, kind)


@contextmanager
def _watched(stage: _Stage) -> Iterator[None]:
    """Tells the head's memory from the blocks', and one micro-batch's collectives from the next one's."""

    def begin_micro_batch(*_: object) -> None:
        stage.traffic.part += 1

    def enter_head(*_: object) -> None:
        stage.log.set_kind("logits and head")

    def leave_head(*_: object) -> None:
        stage.log.set_kind("activations")

    model = stage.engine.model
    handles = [
        # Before FSDP2's own, which gathers.
        model.register_forward_pre_hook(begin_micro_batch, prepend=True),
        model.head.register_forward_pre_hook(enter_head),
        model.head.register_forward_hook(leave_head),
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _count_parameters(engine: Engine) -> dict[str, int]:
    counts = {"tracks": 0, "embedding and head": 0}
    for name, piece in engine.placement.pieces(engine.model):
        part = name.partition(".")[0]
        part = "embedding and head" if part in ("embedding", "head") else part
        counts[part] = counts.get(part, 0) + piece.local.numel()
    return counts
