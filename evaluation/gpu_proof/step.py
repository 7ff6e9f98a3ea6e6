from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from evaluation.gpu_proof.rows import Row, bounded, impossible
from evaluation.gpu_proof.setting import Setting
from evaluation.gpu_proof.small_model import (
    CPU,
    build_engine,
    forward_backward,
    gradients,
    random_windows,
    small_config,
    worst_error,
)
from parallax.errors import BackendError
from parallax.parallel.native import NativeEngine
from parallax.runtime.device import PrecisionName

_ROWS = 4


class Limits(NamedTuple):
    """Relative errors that a step may have."""

    loss: float
    norm: float
    gradient: float
    """Of the parameter whose gradient is worst, in the Euclidean norm."""


LIMITS: dict[PrecisionName, Limits] = {
    "fp32": Limits(1e-6, 1e-5, 1e-4),
    "bf16": Limits(5e-4, 1e-2, 5e-2),
    "fp16": Limits(1e-4, 2e-3, 1e-2),
}

_ON_CPU = LIMITS["fp32"]._replace(norm=1e-4)
"""A CPU sums a million fp32 squares one after the other, which alone costs 1.5e-5 of the norm."""


class Measured(NamedTuple):
    """What one step of an engine gave."""

    loss: float
    norm: float
    gradients: dict[str, Tensor]


def check_step(setting: Setting) -> Iterator[Row]:
    """One training step on the device, TF32 off, against float64 on the CPU: loss, norm, every gradient."""
    config = small_config(quick=setting.quick)
    windows = random_windows(config, _ROWS)
    exact = measure(build_engine(config, CPU, dtype=torch.float64), windows)
    torch.backends.cuda.matmul.allow_tf32 = False
    on_cpu = measure(build_engine(config, CPU), windows)
    yield from compare("fp32 on the CPU", on_cpu, exact, _ON_CPU)
    for precision, limits in LIMITS.items():
        what = f"{precision} on {setting.device.type}"
        try:
            engine = build_engine(config, setting.device, precision)
        except BackendError as error:
            yield impossible(what, str(error))
            continue
        found = measure(engine, windows)
        yield from compare(what, found, exact, limits)
        if precision == "fp32":
            yield from compare(f"{what} against fp32 on the CPU", found, on_cpu, _ON_CPU)


def measure(engine: NativeEngine, windows: Tensor) -> Measured:
    """Loss a token, gradient norm and gradients of one step, which is taken."""
    sums = forward_backward(engine, windows)
    found = gradients(engine)
    norm = engine.clip_and_step(1e-3).item()
    return Measured(sums.objective.item() / sums.tokens, norm, found)


def compare(what: str, found: Measured, expected: Measured, limits: Limits) -> Iterator[Row]:
    """Three rows of relative errors."""
    yield bounded(f"{what}: loss", abs(found.loss / expected.loss - 1), limits.loss)
    yield bounded(f"{what}: gradient norm", abs(found.norm / expected.norm - 1), limits.norm)
    error, name = worst_error(found.gradients, expected.gradients)
    yield bounded(f"{what}: worst gradient", error, limits.gradient, f"of {len(expected.gradients)}: {name}")
