import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from parallax.attention.select import choose_backend
from parallax.config.batch import resolve_batch
from parallax.config.layout import Layout, resolve_layout
from parallax.config.run import RunConfig
from parallax.errors import ConfigError
from parallax.metrics.allocations import BACKWARD, AllocationLog
from parallax.model.head import Objective
from parallax.model.noise import row_keys
from parallax.model.registry import build_model
from parallax.parallel.build import build_native_engine, resolve_shared
from parallax.parallel.mesh import Mesh, build_mesh
from parallax.parallel.native import NativeEngine
from parallax.parallel.rehearsal import joined_as, without_memory
from parallax.parallel.traffic_counter import Collective, TrafficCounter
from parallax.runtime.device import Precision, resolve_precision
from parallax.train.freeze import trainable_names
from parallax.train.optimizer import build_optimizer

PHASES = ("forward", BACKWARD, "update")
"""The phases of a step, in which memory is told apart."""
KINDS = (
    "weights",
    "gradients",
    "optimizer states",
    "gathered weights",
    "reduction buffers",
    "activations",
    "logits and head",
    "working memory",
)
"""What memory is for. Gathered weights are FSDP2's, reduction buffers FSDP2's or DDP's; logits and head is all
that the head takes in its forward, its gradients included; working memory is the rest of backward and update."""

_PURPOSES = {
    "fsdp.all_gather_copy_in.default": "gathered weights",
    "fsdp.split_with_sizes_copy.default": "gathered weights",
    "fsdp.chunk_cat.default": "reduction buffers",
    "c10d._reduce_scatter_base_.default": "reduction buffers",
}
_CPU = torch.device("cpu")
_ALL_LOGITS = 1 << 62
_MICRO_BATCHES = 3
"""The first gathers, the last reduces, and all between them are alike."""
_SEPARATING_ID = 0


@dataclass(frozen=True)
class Choice:
    """What `auto` stands for here, and why."""

    key: str
    value: str
    reason: str


@dataclass(frozen=True)
class RankPlan:
    """What one optimizer step takes on one rank, from the second step on."""

    layout: Layout
    rank: int
    global_batch: int
    accumulation: int
    choices: list[Choice]
    notes: list[str]
    """Where the run as it is configured would not start."""
    parameters: dict[str, int]
    """On this rank: tracks; embedding and head; norm."""
    memory: dict[str, dict[str, int]]
    """Phase -> kind -> bytes at the moment when the phase holds most."""
    collectives: list[tuple[Collective, int]]
    """Each with its number in an optimizer step."""
    seconds: float
    """Spent on planning."""

    @property
    def peak_bytes(self) -> int:
        """The most that the step holds in tensors."""
        return max(sum(kinds.values()) for kinds in self.memory.values())


def plan_rank(config: RunConfig, *, world_size: int, rank: int) -> RankPlan:
    """Rehearses one optimizer step of a rank among others that do not exist, over tensors without memory.

    The engine, its transforms and its optimizer are those of a run; only memory, data and the other ranks are
    not there. Operations are the CPU's; where the run is not meant for a CPU (`runtime.device`), the attention
    backend, the precision and the head's sweeps are those that a GPU would get.

    Raises:
        ConfigError: the layout is impossible, or the rank is not one of it.
    """
    started = time.perf_counter()
    layout = resolve_layout(config.parallel, config.model.num_tracks, world_size)
    if not 0 <= rank < world_size:
        raise ConfigError(f"--rank {rank}: the ranks of --world-size {world_size} are 0 to {world_size - 1}")
    accumulation, notes = settle_accumulation(config, layout)
    backend, precision, choices = _choices(config, layout)
    log = AllocationLog(_PURPOSES)
    with ExitStack() as stack:
        stack.enter_context(joined_as(rank, world_size))
        mesh = build_mesh(layout, _CPU)
        traffic = TrafficCounter(mesh)
        engine = _build_engine(config, mesh, backend, precision)
        stack.enter_context(without_memory())
        stack.enter_context(log)
        stack.enter_context(traffic)
        _rehearse(config, engine, log, traffic, accumulation)
        parameters = _count_parameters(engine)
    between = accumulation - _MICRO_BATCHES + 1
    return RankPlan(
        layout=layout,
        rank=rank,
        global_batch=accumulation * config.train.micro_batch * layout.dp,
        accumulation=accumulation,
        choices=choices,
        notes=notes,
        parameters=parameters,
        memory={phase: kinds for phase, kinds in log.peaks("optimizer states").items() if phase in PHASES},
        collectives=[(c, between if c.part == 2 and between > 1 else 1) for c in traffic.collectives],
        seconds=time.perf_counter() - started,
    )


def settle_accumulation(config: RunConfig, layout: Layout) -> tuple[int, list[str]]:
    """Micro-batches a step on each rank; where the batch does not divide, those of the nearest that does."""
    asked = config.train
    try:
        return resolve_batch(asked.global_batch, asked.micro_batch, layout.dp), []
    except ValueError as error:
        accumulation = max(1, round(asked.global_batch / (asked.micro_batch * layout.dp)))
        planned = accumulation * asked.micro_batch * layout.dp
        return accumulation, [f"train.{error}; planned with global_batch={planned}"]


def _is_for_gpu(config: RunConfig) -> bool:
    return config.runtime.device != "cpu"


def _choices(config: RunConfig, layout: Layout) -> tuple[str, Precision, list[Choice]]:
    """Attention backend and precision of the run, and all that was chosen, with reasons."""
    target = torch.device("cuda" if _is_for_gpu(config) else "cpu")
    attention = choose_backend(config.model.attention, config.runtime.attention_backend, target)
    if config.train.precision == "auto" and _is_for_gpu(config):
        chosen = resolve_precision("bf16", _CPU)
        precision = replace(chosen, reason="auto takes it on a GPU from sm_80 on")
    else:
        precision = resolve_precision(config.train.precision, _CPU)
    choices = [
        Choice("train.precision", precision.name, precision.reason),
        Choice("runtime.attention_backend", attention.backend.name, attention.reason),
    ]
    if layout.track > 1:
        reason = "auto: nothing twice" if config.parallel.shared == "auto" else "asked for"
        choices.append(Choice("parallel.shared", resolve_shared(config.parallel.shared), reason))
    if layout.dp_shard > 1:
        asked = config.parallel.reshard_after_forward
        loops = config.model.num_loops
        value = loops == 1 if asked == "auto" else asked
        reason = f"auto: {loops} passes use what is gathered" if asked == "auto" else "asked for"
        choices.append(Choice("parallel.reshard_after_forward", str(value).lower(), reason))
    return attention.backend.name, precision, choices


def _build_engine(config: RunConfig, mesh: Mesh, backend: str, precision: Precision) -> NativeEngine:
    engine = build_native_engine(
        config.model,
        mesh=mesh,
        device=_CPU,
        attention_backend=backend,
        shared=config.parallel.shared,
        reshard_after_forward=config.parallel.reshard_after_forward,
        precision=precision,
        build_optimizer=lambda filled: build_optimizer(filled, config.optim),
        grad_clip=config.optim.grad_clip,
        activation_checkpointing=config.train.activation_checkpointing,
        separating_eos_id=_SEPARATING_ID if config.data.document_mask else None,
    )
    if config.train.freeze:
        # A pattern may name tracks of other ranks only.
        engine.set_trainable(trainable_names(build_model(config.model), config.train.freeze))
    return engine


def _rehearse(
    config: RunConfig, engine: NativeEngine, log: AllocationLog, traffic: TrafficCounter, accumulation: int
) -> None:
    # DDP makes its buckets at the start.
    with log.phase("start", "reduction buffers"):
        engine.materialize(lambda model: None)
    traffic.collectives.clear()
    objective = Objective(
        label_smoothing=config.loss.label_smoothing,
        z_loss=config.loss.z_loss,
        chunk_tokens=config.loss.chunk_tokens,
        cached_logits=_ALL_LOGITS if _is_for_gpu(config) else None,
    )
    count = min(accumulation, _MICRO_BATCHES)
    shape = (config.train.micro_batch, config.model.max_seq_len + 1)
    with log.phase("forward", "activations"), _watched(engine, log, traffic):
        windows = [torch.empty(shape, dtype=torch.long) for _ in range(count)]
        engine.forward_backward(windows, objective, [row_keys(0, range(len(rows))) for rows in windows])
    parameters = list(engine.model.parameters())
    log.tag(parameters, "weights")
    log.tag([p.grad for p in parameters if p.grad is not None], "gradients")
    with log.phase("update", "working memory"):
        engine.clip_and_step(config.optim.lr)
    states = [value for state in engine.optimizer.state.values() for value in state.values()]
    log.tag([value for value in states if isinstance(value, Tensor)], "optimizer states")


@contextmanager
def _watched(engine: NativeEngine, log: AllocationLog, traffic: TrafficCounter) -> Iterator[None]:
    """Tells the head's memory from the blocks', and one micro-batch's collectives from the next one's."""

    def begin_micro_batch(*_: object) -> None:
        traffic.part += 1

    def enter_head(*_: object) -> None:
        log.set_kind("logits and head")

    def leave_head(*_: object) -> None:
        log.set_kind("activations")

    head = engine.model.head
    handles = [
        # Before FSDP2's own, which gathers.
        engine.model.register_forward_pre_hook(begin_micro_batch, prepend=True),
        head.register_forward_pre_hook(enter_head),
        head.register_forward_hook(leave_head),
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _count_parameters(engine: NativeEngine) -> dict[str, int]:
    assert engine.placement is not None
    counts = {"tracks": 0, "embedding and head": 0, "norm": 0}
    for name, piece in engine.placement.pieces(engine.model):
        owner = engine.placement.ownership[name]
        part = "tracks" if owner.track is not None else "norm" if owner.vocab_dim is None else "embedding and head"
        counts[part] += piece.local.numel()
    return counts
