"""Every layout trains exactly as one process: loss, every gradient, the norm, the weights after two steps."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache

import pytest
import torch
from parity import ALONE, Case, Outcome, train_two_steps, whole
from worker_pool import WorkerPool

from parallax.config.layout import Layout

EXACT = {"rtol": 1e-10, "atol": 1e-10}
LAYOUTS = {
    "track2": Layout(track=2, dp_replicate=1, dp_shard=1),
    "ddp2": Layout(track=1, dp_replicate=2, dp_shard=1),
    "fsdp2": Layout(track=1, dp_replicate=1, dp_shard=2),
    "track2-ddp2": Layout(track=2, dp_replicate=2, dp_shard=1),
    "track2-fsdp2": Layout(track=2, dp_replicate=1, dp_shard=2),
    "hsdp2x2": Layout(track=1, dp_replicate=2, dp_shard=2),
    "fsdp4": Layout(track=1, dp_replicate=1, dp_shard=4),
    "track2-across-fsdp2": Layout(track=2, dp_replicate=1, dp_shard=2, track_across=True),
}


@cache
def alone(case: Case) -> Outcome:
    return train_two_steps(case)


@pytest.mark.parametrize("tie", [False, True])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shared", ["vocab_split", "copy_reduce"])
def test_two_steps(layout: str, shared: str, tie: bool, pool_of: Callable[[int], WorkerPool]) -> None:
    assert_like_one_process(Case(layout=LAYOUTS[layout], shared=shared, tie=tie), pool_of)


@pytest.mark.parametrize("accumulation", [1, 2])
@pytest.mark.parametrize("layout", ["track2", "track2-ddp2", "fsdp2", "hsdp2x2"])
def test_two_steps_with_dropout(layout: str, accumulation: int, pool_of: Callable[[int], WorkerPool]) -> None:
    """Every rank draws the masks that one process draws for the same samples and tracks."""
    case = Case(layout=LAYOUTS[layout], accumulation=accumulation, dropout=0.1, activation_checkpointing=True)
    assert_like_one_process(case, pool_of)


def assert_like_one_process(case: Case, pool_of: Callable[[int], WorkerPool]) -> None:
    expected = alone(replace(case, layout=ALONE, shared="auto"))
    found = pool_of(case.layout.world_size).run(train_two_steps, case)
    for outcome in found:
        torch.testing.assert_close(outcome.sums, expected.sums, **EXACT)
        torch.testing.assert_close(outcome.norms, expected.norms, **EXACT)
    for field in ("gradients", "weights"):
        got, want = whole([getattr(o, field) for o in found]), whole([getattr(expected, field)])
        torch.testing.assert_close(got, want, **EXACT)
