import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch

from evaluation.gpu_proof.rows import Row, equal
from evaluation.gpu_proof.setting import Setting
from evaluation.gpu_proof.small_model import (
    build_engine,
    forward_backward,
    random_windows,
    scaler_state,
    small_config,
    weights,
)
from parallax.checkpoint.load import load_weights, read_checkpoint
from parallax.checkpoint.store import CheckpointStore
from parallax.parallel.native import NativeEngine
from parallax.parallel.optimizer_state import optimizer_tensors, restore_optimizer
from parallax.runtime.determinism import use_deterministic_kernels
from parallax.runtime.device import PrecisionName

_STEPS = 6


def check_determinism(setting: Setting) -> Iterator[Row]:
    """runtime.deterministic: two runs, one of which is saved and resumed in between, end in the same bits."""
    use_deterministic_kernels()
    precisions: tuple[PrecisionName, ...] = ("bf16",) if setting.quick else ("fp32", "bf16", "fp16")
    for precision in precisions:
        straight, losses = _train(_build(setting, precision), 0, _STEPS)
        with tempfile.TemporaryDirectory() as folder:
            halted, first = _train(_build(setting, precision), 0, _STEPS // 2)
            save(halted, Path(folder), _STEPS // 2)
            resumed = _build(setting, precision)
            restore(resumed, Path(folder))
            resumed, second = _train(resumed, _STEPS // 2, _STEPS)
        what = f"{precision}, dropout 0.1"
        other = differing(straight, resumed)
        yield equal(f"{what}: weights that differ after {_STEPS} steps, resumed after {_STEPS // 2}", other, 0)
        yield equal(
            f"{what}: losses that differ", sum(a != b for a, b in zip(losses, first + second, strict=True)), 0
        )


def _build(setting: Setting, precision: PrecisionName) -> NativeEngine:
    return build_engine(small_config(quick=setting.quick, dropout=0.1), setting.device, precision)


def _train(engine: NativeEngine, start: int, stop: int) -> tuple[NativeEngine, list[float]]:
    losses = []
    for number in range(start, stop):
        windows = random_windows(engine.model.config, 4, seed=number)
        losses.append(forward_backward(engine, windows, first_sample=4 * number).objective.item())
        engine.clip_and_step(1e-3)
    return engine, losses


def save(engine: NativeEngine, folder: Path, step: int) -> None:
    """A checkpoint as a run writes it."""
    tensors, described = optimizer_tensors(engine.optimizer, engine.model.named_parameters())
    CheckpointStore(folder, keep_last=1).save(
        step,
        weights=engine.model.state_dict(keep_vars=True),
        optimizer=tensors,
        state={"engine": scaler_state(engine), "optimizer": described},
        texts={},
    )


def restore(engine: NativeEngine, folder: Path) -> None:
    """Puts the newest checkpoint into an engine."""
    store = CheckpointStore(folder, keep_last=1)
    checkpoint = read_checkpoint(store.path_of(store.steps()[-1]))
    load_weights(engine.model, checkpoint.weights, source=folder)
    restore_optimizer(
        engine.optimizer,
        engine.model.named_parameters(),
        checkpoint.optimizer,
        checkpoint.state["optimizer"],
        source=folder,
    )
    engine.load_extra_state(checkpoint.state["engine"])


def differing(first: NativeEngine, second: NativeEngine) -> int:
    """Weights of which some bit differs."""
    mine, other = weights(first), weights(second)
    return sum(not torch.equal(mine[name], other[name]) for name in mine)
