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
    case = Case(layout=LAYOUTS[layout], shared=shared, tie=tie)
    expected = alone(replace(case, layout=ALONE, shared="auto"))
    found = pool_of(case.layout.world_size).run(train_two_steps, case)
    for outcome in found:
        torch.testing.assert_close(outcome.sums, expected.sums, **EXACT)
        torch.testing.assert_close(outcome.norms, expected.norms, **EXACT)
    for field in ("gradients", "weights"):
        got, want = whole([getattr(o, field) for o in found]), whole([getattr(expected, field)])
        torch.testing.assert_close(got, want, **EXACT)
