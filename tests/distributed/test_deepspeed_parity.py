"""DeepSpeed over every stage and layout, beside one process of the native engine."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import pytest
from cases import VARIANTS
from deepspeed_steps import Case, Outcome, Overflow, alone, outcome, overflow
from parity import ALONE, whole
from worker_pool import PoolOf

from parallax.config.layout import Layout

pytestmark = [pytest.mark.deepspeed, pytest.mark.timeout(300)]

DP2 = Layout(track=1, dp_replicate=2, dp_shard=1)
TRACK2 = Layout(track=2, dp_replicate=1, dp_shard=1)
BOTH = Layout(track=2, dp_replicate=2, dp_shard=1)
FP32 = [
    Case(DP2, stage=0, accumulation=2),
    Case(DP2, stage=1, tie=True),
    Case(DP2, stage=2, accumulation=2, dropout=0.1),
    Case(DP2, stage=3, checkpointing=True, dropout=0.1),
    Case(TRACK2, stage=0, shared="copy_reduce"),
    Case(TRACK2, stage=1, shared="vocab_split", accumulation=2),
    Case(TRACK2, stage=2, shared="copy_reduce", tie=True),
    Case(TRACK2, stage=3, shared="vocab_split"),
    Case(BOTH, stage=0, shared="vocab_split", tie=True),
    Case(BOTH, stage=1, shared="copy_reduce", accumulation=2),
    Case(BOTH, stage=2, shared="vocab_split", grad_clip=0.0),
    Case(BOTH, stage=3, shared="copy_reduce", accumulation=2, tie=True),
    Case(DP2, stage=1, freeze=("embedding.weight",)),
    Case(DP2, stage=3, freeze=("embedding.weight",)),
]
"""All stages with all layouts; both forms of shared parameters with all stages."""
MORE = Case(BOTH, stage=3, shared="vocab_split", accumulation=2)
"""A triple whose pairs are all in `FP32`."""


VARIANTS_OF_GPT2 = [
    *(Case(DP2, stage=3, variant=variant, dropout=0.1) for variant in VARIANTS),
    *(Case(DP2, stage=stage, variant="concat", accumulation=2) for stage in (0, 1, 2)),
    Case(TRACK2, stage=3, shared="vocab_split", variant="mean"),
    Case(TRACK2, stage=2, shared="copy_reduce", variant="concat", accumulation=2),
    Case(DP2, stage=2, variant="plla", accumulation=2),
    Case(TRACK2, stage=3, shared="vocab_split", variant="plla concat"),
]
"""All under the stage that divides weights too, one under all stages, and pairs of blocks on two ranks."""


class Differences(NamedTuple):
    """The largest differences from one process; relative but for the tensors."""

    loss: float
    norm: float
    parameter_norm: float
    tensors: float
    """Of weights and both moments, absolute."""


def compare(case: Case, found: list[Outcome]) -> Differences:
    expected = alone(
        Case(
            ALONE,
            engine="native",
            tie=case.tie,
            dropout=case.dropout,
            grad_clip=case.grad_clip,
            freeze=case.freeze,
            variant=case.variant,
        )
    )
    # Its optimizers round by the place in one vector of all parameters, which is another on other track ranks.
    got, want = whole([rank.pieces for rank in found], apart=1e-6), whole([expected.pieces])
    assert got.keys() == want.keys()
    return Differences(
        loss=max(_relative(rank.losses, expected.losses) for rank in found),
        norm=max(_relative(rank.norms, expected.norms) for rank in found),
        parameter_norm=max(_relative([rank.parameter_norm], [expected.parameter_norm]) for rank in found),
        tensors=max(float((got[name] - want[name]).abs().max()) for name in want),
    )


def _relative(found: list[float], expected: list[float]) -> float:
    return max(abs(a - b) / abs(b) for a, b in zip(found, expected, strict=True))


def run(pool_of: PoolOf, case: Case) -> list[Outcome]:
    return pool_of(case.layout.world_size).run(outcome, case, timeout=120)


def name(case: Case) -> str:
    changed = [f"{key}={value}" for key, value in vars(case).items() if value != getattr(Case(), key)]
    layout = f"track{case.layout.track}-dp{case.layout.dp}-zero{case.stage}-"
    return layout + "-".join(text for text in changed if not text.startswith(("layout", "stage")))


@pytest.mark.parametrize("case", [*FP32, pytest.param(MORE, marks=pytest.mark.product)], ids=name)
def test_every_stage_and_layout_trains_as_one_process_does(deepspeed_pool_of: PoolOf, case: Case) -> None:
    found = run(deepspeed_pool_of, case)
    assert max(compare(case, found)) < 1e-6
    assert len({tuple(rank.norms) for rank in found}) == 1


@pytest.mark.parametrize("case", VARIANTS_OF_GPT2, ids=name)
def test_every_variant_of_gpt2_trains_as_one_process_does(
    deepspeed_pool_of: PoolOf, case: Case, tmp_path: Path
) -> None:
    # DeepSpeed leaves small weights whole on every rank, and all are small here.
    settings = tmp_path / "settings.json"
    settings.write_text(json.dumps({"zero_optimization": {"stage3_param_persistence_threshold": 0}}))
    found = run(deepspeed_pool_of, replace(case, settings=str(settings)))
    # Three steps with four layers round more than with two.
    assert max(compare(case, found)) < 1e-5
    assert len({tuple(rank.norms) for rank in found}) == 1


@pytest.mark.parametrize(
    "case",
    [
        Case(BOTH, stage=1, precision="bf16", accumulation=2),
        Case(BOTH, stage=3, precision="bf16", accumulation=2),
        Case(TRACK2, stage=2, precision="fp16"),
        Case(DP2, stage=3, precision="fp16", accumulation=2),
    ],
    ids=name,
)
def test_16_bit_weights_train_alike_within_their_rounding(deepspeed_pool_of: PoolOf, case: Case) -> None:
    found = run(deepspeed_pool_of, case)
    differences = compare(case, found)
    assert differences.loss < 1e-3
    assert differences.norm < 1e-2
    assert differences.parameter_norm < 1e-3
    assert len({tuple(rank.norms) for rank in found}) == 1


@pytest.mark.parametrize(
    "case", [Case(BOTH, stage=1, precision="fp16"), Case(BOTH, stage=3, precision="fp16")], ids=name
)
def test_a_step_that_overflows_in_fp16_is_skipped_by_all_ranks(deepspeed_pool_of: PoolOf, case: Case) -> None:
    for rank in deepspeed_pool_of(4).run(overflow, case, 2.0**40, timeout=120):
        assert rank == Overflow(norm=math.inf, loss_scale=2.0**39, moved=False, num_moments=0)


@pytest.mark.product  # compiles an operator for minutes
@pytest.mark.timeout(1500)
@pytest.mark.parametrize(
    "case",
    [
        Case(BOTH, stage=2, offload=True),
        Case(DP2, stage=2, offload=True, accumulation=2),
        Case(DP2, stage=3, offload=True, offload_parameters=True, accumulation=2),
    ],
    ids=name,
)
def test_what_the_host_holds_trains_as_one_process_does(
    host_adam: object, deepspeed_pool_of: PoolOf, case: Case
) -> None:
    assert max(compare(case, run(deepspeed_pool_of, case))) < 1e-6


@pytest.mark.parametrize("stage", [1, 3])
def test_without_marks_the_norm_leaves_other_tracks_out(deepspeed_pool_of: PoolOf, stage: int) -> None:
    """What the marks are for: if this passes as the marked cases do, DeepSpeed has changed."""
    case = Case(TRACK2, stage=stage, marked=False)
    differences = compare(case, run(deepspeed_pool_of, case))
    assert differences.norm > 0.1
    assert differences.tensors > 1e-4
