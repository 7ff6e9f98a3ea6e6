"""fp16: small gradients survive by a scale on the loss; a step that overflows is skipped and halves it."""

import json
import math

import pytest
import torch
from small_engines import (
    BFLOAT16,
    FLOAT16,
    forward_backward,
    gradients,
    random_windows,
    small_engine,
    weights,
)
from torch.optim import AdamW

from parallax.parallel.native import NativeEngine

SINGLE = torch.float32


def adamw_engine() -> NativeEngine:
    return small_engine(
        precision=FLOAT16, dtype=SINGLE, build_optimizer=lambda m: AdamW(m.parameters(), fused=True), grad_clip=1.0
    )


def with_scale(engine: NativeEngine, scale: float) -> NativeEngine:
    engine.load_extra_state({**engine.extra_state(), "scale": scale})
    return engine


@pytest.mark.parametrize("precision", [FLOAT16, BFLOAT16])
def test_half_precision_comes_near_full_precision_and_keeps_weights_and_gradients_wide(precision) -> None:
    windows = random_windows(8)
    half, full = small_engine(precision=precision, dtype=SINGLE), small_engine(dtype=SINGLE)
    sums, expected = forward_backward(half, windows), forward_backward(full, windows)
    assert float(sums.nll) == pytest.approx(float(expected.nll), rel=0.02)
    assert float(sums.nll) != float(expected.nll)
    assert {value.dtype for value in (weights(half) | gradients(half)).values()} == {SINGLE}
    half_norm, norm = half.clip_and_step(0.1), full.clip_and_step(0.1)
    assert float(half_norm) == pytest.approx(float(norm), rel=0.05)
    torch.testing.assert_close(weights(half), weights(full), rtol=0.05, atol=0.02)


def test_the_scale_is_taken_out_before_the_norm_and_the_update() -> None:
    windows, found = random_windows(8), []
    for scale in (1.0, 4096.0):
        engine = with_scale(small_engine(precision=FLOAT16, dtype=SINGLE, grad_clip=0.5), scale)
        loss = forward_backward(engine, windows).nll
        unscaled = {name: gradient / scale for name, gradient in gradients(engine).items()}
        norm = engine.clip_and_step(0.1)
        torch.testing.assert_close(norm.float(), torch.stack([g.norm() for g in unscaled.values()]).norm())
        found.append((loss, norm, weights(engine)))
    torch.testing.assert_close(found[1], found[0], rtol=0.01, atol=1e-3)


def test_an_overflowing_step_changes_no_weight_and_halves_the_scale() -> None:
    engine = with_scale(adamw_engine(), 2.0**40)
    before = weights(engine)
    forward_backward(engine, random_windows(4))
    assert not math.isfinite(engine.clip_and_step(0.1))
    torch.testing.assert_close(weights(engine), before, rtol=0, atol=0)
    assert engine.extra_state()["scale"] == 2.0**39
    moments = [value for state in engine.optimizer.state.values() for value in state.values()]
    assert not any(value.any() for value in moments), "neither a moment nor the step count has moved"
    assert gradients(engine) == {}


def test_training_goes_on_once_the_scale_has_come_down() -> None:
    engine = with_scale(adamw_engine(), 2.0**40)
    before = weights(engine)
    for _ in range(40):
        forward_backward(engine, random_windows(4))
        if math.isfinite(engine.clip_and_step(0.1)):
            break
    assert 1 < engine.extra_state()["scale"] < 2.0**39
    assert all(not torch.equal(weights(engine)[name], before[name]) for name in before)


def test_the_scale_and_its_growth_counter_survive_a_checkpoint() -> None:
    engine = with_scale(adamw_engine(), 1024.0)
    for _ in range(3):
        forward_backward(engine, random_windows(4))
        engine.clip_and_step(0.01)
    state = json.loads(json.dumps(engine.extra_state()))
    assert (state["scale"], state["_growth_tracker"]) == (1024.0, 3)
    restored = adamw_engine()
    restored.load_extra_state(state)
    assert restored.extra_state() == engine.extra_state()


def test_only_fp16_scales() -> None:
    assert adamw_engine().scales_loss
    for plain in (small_engine(), small_engine(precision=BFLOAT16, dtype=SINGLE)):
        assert not plain.scales_loss
        assert plain.extra_state() == {}
        plain.load_extra_state({})
