"""A run's steps over real ranks and real tensors: what the allocator gave out, and what was sent."""

import gc
from typing import Any, NamedTuple

import torch
from torch.profiler import ProfilerActivity, profile

from parallax.config.layout import resolve_layout
from parallax.config.load import check_config
from parallax.config.run import RunConfig
from parallax.model.head import Objective
from parallax.model.noise import row_keys
from parallax.parallel.engine import Engine
from parallax.parallel.mesh import Mesh, build_mesh
from parallax.runtime.device import resolve_precision
from parallax.train.engines import build_engine

CPU = torch.device("cpu")
Sent = list[tuple[str, str, int, int]]


class Measured(NamedTuple):
    """Of one rank."""

    peak_bytes: int
    """The most that PyTorch's allocator had given out at a time, over the first two optimizer steps."""
    sent: Sent
    """(axis, kind, payload, sent bytes) of the third step's collectives, in their order."""


def small_run(world_size: int, *, model: str = "dual_track", **changes: Any) -> RunConfig:
    """A run on the CPU whose activations, states and logits all weigh something."""
    sizes: dict[str, Any] = {"num_layers": 2, "num_heads": 4, "hidden_size": 64, "intermediate_size": 172}
    if model == "dual_track":
        sizes["num_kv_heads"] = 2
    raw: dict[str, Any] = {
        "model": {"architecture": model, **sizes, "vocab_size": 1000, "max_seq_len": 64},
        "data": {"path": "unused"},
        "train": {"max_steps": 2, "global_batch": 8 * world_size, "micro_batch": 8, "precision": "fp32"},
        "loss": {"chunk_tokens": 128},
        "runtime": {"device": "cpu"},
    }
    for key, value in changes.items():
        section, _, name = key.partition("__")
        raw.setdefault(section, {})[name] = value
    return check_config(raw, source="small run")


def measure_steps(config: RunConfig, world_size: int) -> Measured:
    """Three steps on random tokens, on this rank of a group that is already there."""
    layout = resolve_layout(config.parallel, config.model.num_tracks, world_size)
    mesh = build_mesh(layout, CPU) if world_size > 1 else None
    windows = _random_windows(config, layout.dp)
    objective = Objective(chunk_tokens=config.loss.chunk_tokens)
    gc.collect()  # what an earlier call left behind must not be given back, and counted, inside
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        engine = _build(config, mesh)
        for _ in range(2):
            _step(engine, windows, objective)
    # DDP cuts its buckets anew after the first step.
    with engine.record_traffic() as recorder:
        _step(engine, windows, objective)
    sent = [(c.axis, c.kind, c.payload_bytes, c.sent_bytes) for c in recorder.collectives if c.ranks > 1]
    return Measured(_allocator_peak(profiled), sent)


def run_steps(config: RunConfig, steps: int) -> None:
    """Steps on random tokens, in one process, which nothing watches."""
    windows = _random_windows(config, 1)
    engine = _build(config, None)
    for _ in range(steps):
        _step(engine, windows, Objective(chunk_tokens=config.loss.chunk_tokens))


def _random_windows(config: RunConfig, dp: int) -> list[torch.Tensor]:
    accumulation = config.train.global_batch // (config.train.micro_batch * dp)
    shape = (config.train.micro_batch, config.model.max_seq_len + 1)
    return [torch.randint(config.model.vocab_size, shape) for _ in range(accumulation)]


def _build(config: RunConfig, mesh: Mesh | None) -> Engine:
    engine = build_engine(config, CPU, resolve_precision(config.train.precision, CPU), mesh=mesh, eos_id=0)
    engine.materialize(lambda model: model.initialize(1, engine.placement.put))
    return engine


def _step(engine: Engine, windows: list[torch.Tensor], objective: Objective) -> None:
    engine.forward_backward(windows, objective, [row_keys(0, range(len(rows))) for rows in windows])
    engine.clip_and_step(1e-3)


def _allocator_peak(profiled: Any) -> int:
    live = peak = 0
    for event in profiled.profiler.kineto_results.events():
        if event.name() == "[memory]":
            live += event.nbytes()
            peak = max(peak, live)
    return peak
