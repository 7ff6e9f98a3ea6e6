"""What `plan_rank` predicts on fake ranks and tensors is what real ranks do with real ones."""

from collections.abc import Callable
from typing import Any

import pytest
from worker_pool import WorkerPool

from evaluation.measured_step import measure_steps, small_run
from parallax.train.planning.rank_plan import RankPlan
from parallax.train.planning.rehearsal import plan_rank

WITHIN = 0.03
WITHIN_OF_TWO_RANKS = 0.06
"""Of the bytes that PyTorch's allocator had given out at its peak."""
REPEATS = 3
"""Gloo's threads sometimes let go of a buffer a moment late, which can only raise a peak: the lowest counts."""

ALONE: dict[str, dict[str, Any]] = {
    "fp32": {},
    "bf16": {"train__precision": "bf16"},
    "checkpointing": {"train__activation_checkpointing": True},
    "accumulation": {"train__micro_batch": 2},
}
TWO: dict[str, dict[str, Any]] = {
    "tracks": {"parallel__track": 2},
    "tracks-copied": {"parallel__track": 2, "parallel__shared": "copy_reduce"},
    "ddp": {},
    "fsdp": {"parallel__dp_shard": 2},
    "fsdp-gathering-again": {"parallel__dp_shard": 2, "parallel__reshard_after_forward": True},
    "fsdp-accumulating": {"parallel__dp_shard": 2, "train__micro_batch": 4},
    "pairs": {"parallel__track": 2, "model": "gpt2_parallel", "model__num_layers": 4},
    "pairs-concat": {
        "parallel__track": 2,
        "model": "gpt2_parallel",
        "model__num_layers": 4,
        "model__merge": "concat",
    },
    "pairs-fsdp": {"parallel__dp_shard": 2, "model": "gpt2_parallel", "model__merge": "concat"},
}


@pytest.mark.parametrize("name", ALONE)
def test_one_process_holds_the_predicted_peak(name: str, pool_of: Callable[[int], WorkerPool]) -> None:
    config = small_run(1, **ALONE[name])
    [measured] = pool_of(1).run(measure_steps, config, 1)
    planned = plan_rank(config, world_size=1, rank=0)
    assert planned.peak_bytes == pytest.approx(measured.peak_bytes, rel=WITHIN)


@pytest.mark.parametrize("name", TWO)
def test_two_ranks_hold_the_predicted_peak_and_send_the_predicted_bytes(
    name: str, pool_of: Callable[[int], WorkerPool]
) -> None:
    config = small_run(2, **TWO[name])
    runs = [pool_of(2).run(measure_steps, config, 2) for _ in range(REPEATS)]
    for rank in range(2):
        found = min((run[rank] for run in runs), key=lambda one: one.peak_bytes)
        planned = plan_rank(config, world_size=2, rank=rank)
        assert planned.peak_bytes == pytest.approx(found.peak_bytes, rel=WITHIN_OF_TWO_RANKS)
        assert _merged(_sent(planned)) == _merged(found.sent)


def _sent(planned: RankPlan) -> list[tuple[str, str, int, int]]:
    return [
        (c.axis, c.kind, c.payload_bytes, c.sent_bytes) for c, times in planned.collectives for _ in range(times)
    ]


def _merged(sent: list[tuple[str, str, int, int]]) -> list[tuple[str, str, int, int]]:
    """DDP cuts its gradients into buckets anew after the first step: neighbours of one kind count as one."""
    merged: list[tuple[str, str, int, int]] = []
    for axis, operation, payload, out in sent:
        if merged and axis == "dp" and merged[-1][:2] == (axis, operation) and min(payload, merged[-1][2]) > 64:
            payload, out = payload + merged[-1][2], out + merged.pop()[3]
        merged.append((axis, operation, payload, out))
    return merged
