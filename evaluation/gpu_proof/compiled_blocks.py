from collections.abc import Iterator
from typing import Any

import torch
from torch._dynamo.utils import counters

from evaluation.gpu_proof.compiler import why_no_compiler
from evaluation.gpu_proof.rows import Row, bounded, equal, impossible
from evaluation.gpu_proof.setting import Setting
from evaluation.gpu_proof.small_model import (
    build_engine,
    forward_backward,
    gradients,
    random_windows,
    small_config,
    worst_error,
)
from parallax.runtime.device import PrecisionName

_STEPS = 3
_ROWS = 4
LIMITS: dict[PrecisionName, tuple[float, float]] = {"fp32": (1e-6, 1e-4), "bf16": (5e-4, 5e-2)}
"""Of the loss and of the worst gradient, relative to the eager engine's."""


def check_compiled_blocks(setting: Setting) -> Iterator[Row]:
    """torch.compile of blocks: loss and gradients of eager, one graph without a break for all blocks and steps."""
    why_not = why_no_compiler(setting.device)
    if why_not is not None:
        yield impossible("torch.compile of blocks", why_not)
        return
    for precision, options in variants(setting):
        yield from _compare(setting, precision, options)


def variants(setting: Setting) -> Iterator[tuple[PrecisionName, dict[str, Any]]]:
    """What is compiled: fp32, and bf16 with blocks recomputed in the backward."""
    yield "fp32", {}
    if not setting.quick:
        yield "bf16", {"activation_checkpointing": True}


def _compare(setting: Setting, precision: PrecisionName, options: dict[str, Any]) -> Iterator[Row]:
    torch.compiler.reset()
    counters.clear()
    config = small_config(quick=setting.quick)
    what = f"{precision}{', activation checkpointing' if options else ''}"
    eager = build_engine(config, setting.device, precision, **options)
    compiled = build_engine(config, setting.device, precision, compile_blocks=True, **options)
    losses, worst = 0.0, (0.0, "")
    for number in range(_STEPS):
        windows = random_windows(config, _ROWS, seed=number)
        expected, found = (forward_backward(engine, windows).objective.item() for engine in (eager, compiled))
        losses = max(losses, abs(found / expected - 1))
        if number == 0:
            worst = worst_error(gradients(compiled), gradients(eager))
        for engine in (eager, compiled):
            engine.clip_and_step(1e-3)
    limits = LIMITS[precision]
    yield bounded(f"{what}: loss of {_STEPS} steps", losses, limits[0])
    yield bounded(f"{what}: worst gradient", worst[0], limits[1], worst[1])
    blocks = config.num_tracks * config.num_layers * config.num_loops
    yield equal(
        f"{what}: graphs for {blocks} executed blocks, {_STEPS} steps", counters["stats"]["unique_graphs"], 1
    )
    yield equal(f"{what}: graph breaks", sum(counters["graph_break"].values()), 0)
