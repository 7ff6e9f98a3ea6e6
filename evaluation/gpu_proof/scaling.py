import math
from collections.abc import Iterator

import torch
from torch import Tensor

from evaluation.gpu_proof.rows import Row, equal, within
from evaluation.gpu_proof.setting import Setting
from evaluation.gpu_proof.small_model import (
    build_engine,
    forward_backward,
    random_windows,
    scaler_state,
    small_config,
    weights,
)
from parallax.parallel.native import NativeEngine

_TOO_LARGE = 2.0**40
_STEPS = 30
_LEARNING_RATE = 3e-3


def check_scaling(setting: Setting) -> Iterator[Row]:
    """fp16: an overflow skips the step and halves the scale, training recovers, a resume keeps the scale."""
    config = small_config(quick=setting.quick)
    windows = random_windows(config, 4)
    engine = build_engine(config, setting.device, "fp16")
    yield from _overflow(engine, windows)
    yield from _recovery(engine, windows)
    resumed = build_engine(config, setting.device, "fp16")
    resumed.load_extra_state(scaler_state(engine))
    yield equal("scale and growth counter after a resume", _short(resumed), _short(engine))


def _overflow(engine: NativeEngine, windows: Tensor) -> Iterator[Row]:
    engine.load_extra_state({**engine.extra_state(), "scale": _TOO_LARGE})
    before = weights(engine)
    norm = step(engine, windows)[1]
    yield equal("gradient norm of a forced overflow is finite", math.isfinite(norm), False)
    changed = sum(not torch.equal(before[name], tensor) for name, tensor in weights(engine).items())
    yield equal("weights that the skipped step changed", changed, 0)
    moved = sum(bool(v.any()) for state in engine.optimizer.state.values() for v in state.values())
    yield equal("optimizer tensors that it moved", moved, 0)
    yield equal("scale after it, in powers of two", math.log2(engine.loss_scale), math.log2(_TOO_LARGE) - 1)


def _recovery(engine: NativeEngine, windows: Tensor) -> Iterator[Row]:
    skipped = 0
    while not math.isfinite(step(engine, windows)[1]) and skipped < math.log2(_TOO_LARGE):
        skipped += 1
    yield within("further skipped steps until one counts", skipped, 1, 35)
    losses = [step(engine, windows)[0] for _ in range(_STEPS)]
    fell = losses[-1] / losses[0]
    yield within(f"loss after {_STEPS} steps on one batch, of the first", fell, 0.0, 0.9)


def step(engine: NativeEngine, windows: Tensor) -> tuple[float, float]:
    """One update; loss a token and gradient norm."""
    sums = forward_backward(engine, windows)
    norm = engine.clip_and_step(_LEARNING_RATE).item()
    return sums.nll.item() / sums.tokens, norm


def _short(engine: NativeEngine) -> str:
    state = scaler_state(engine)
    return f"{state['scale']:g}, {state['_growth_tracker']}"
