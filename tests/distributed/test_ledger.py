"""What ranks send each other is what the formula says, and no more than it must be."""

from collections.abc import Callable
from dataclasses import replace
from itertools import product
from typing import Literal

import pytest
import torch
import torch.distributed as dist
from cases import LAYOUTS, PARALLEL, WAYS
from parity import Case, train_two_steps
from worker_pool import WorkerPool

from parallax.metrics.traffic import step_bytes
from parallax.parallel.ledger import LedgerRecorder
from parallax.parallel.traffic import Key, Kind, Phase, Traffic, find_differences, journal_values, sent_bytes

PoolOf = Callable[[int], WorkerPool]
STATES = 8 * 6 * 8 * 8
"""Bytes of (B, T, D) in float64 in the cases: B = 8 without data parallelism, T = 6, D = 8."""


def ledgers_of(cases: list[Case]) -> list[tuple[dict[Key, Traffic], dict[Key, Traffic]]]:
    """Of each case's second step, in which DDP has settled: recorded, predicted."""
    outcomes = [train_two_steps(case) for case in cases]
    return [(outcome.recorded[1], outcome.predicted) for outcome in outcomes]


def recorded(pool_of: PoolOf, case: Case) -> dict[Key, Traffic]:
    return pool_of(case.layout.world_size).run(ledgers_of, [case])[0][0][0]


@pytest.mark.parametrize("way", WAYS, ids="-".join)
def test_every_layout_moves_what_its_formula_says(way: tuple[str, str], pool_of: PoolOf) -> None:
    layout, shared = LAYOUTS[way[0]], way[1]
    cases = [
        Case(
            layout,
            shared,
            max(layout.track, 2),
            loops,
            accumulation,
            reshard_after_forward=layout.dp_shard > 2,
            activation_checkpointing=loops == 2,
        )
        for loops, accumulation in product((1, 2, 3), (1, 2))
    ]
    ranks = pool_of(layout.world_size).run(ledgers_of, cases)
    differences = [find_differences(*ledgers) for rank in ranks for ledgers in rank]
    assert not any(differences), differences
    assert all(found for rank in ranks for found, _ in rank) == (layout.world_size > 1)


@pytest.mark.parametrize(("shared", "sums"), [("copy_reduce", 1), ("vocab_split", 2)])
def test_tracks_meet_once_a_pass(shared: str, sums: int, pool_of: PoolOf) -> None:
    found = recorded(pool_of, Case(LAYOUTS["track2"], shared, num_loops=3))
    for phase in (Phase.FORWARD, Phase.BACKWARD):
        assert found[Key(phase, "track", Kind.ALL_TO_ALL)] == Traffic(2, 2, 2 * STATES)
        assert found[Key(phase, "track", Kind.ALL_REDUCE)] == Traffic(2, sums, sums * STATES)


@pytest.mark.parametrize(("shared", "more"), [("copy_reduce", 0), ("vocab_split", 1)])
@pytest.mark.parametrize("variant", PARALLEL)
def test_the_two_blocks_of_a_pair_meet_once_each_way(
    variant: str, shared: str, more: int, pool_of: PoolOf
) -> None:
    found = recorded(pool_of, Case(LAYOUTS["track2"], shared, variant=variant))
    pairs = 2
    for phase in (Phase.FORWARD, Phase.BACKWARD):
        sums = pairs + more
        assert found[Key(phase, "track", Kind.ALL_REDUCE)] == Traffic(2, sums, sums * STATES)
    assert not [key for key in found if key.kind == Kind.ALL_TO_ALL]


@pytest.mark.parametrize("shared", ["copy_reduce", "vocab_split"])
@pytest.mark.parametrize("variant", ["", "concat"])
def test_the_closed_form_of_a_step_is_what_the_track_axis_carries(
    variant: str, shared: Literal["copy_reduce", "vocab_split"], pool_of: PoolOf
) -> None:
    case = Case(LAYOUTS["track2"], shared, variant=variant)
    sent = sum(size for key, size in sent_bytes(recorded(pool_of, case)).items() if key.axis == "track")
    assert sent == 2 * step_bytes(case.model(), case.layout, shared).of(8 * 6)  # float64, and it says fp32


@pytest.mark.parametrize("reinject", [True, False])
def test_without_the_swap_nothing_travels_between_passes(reinject: bool, pool_of: PoolOf) -> None:
    case = Case(LAYOUTS["track2"], num_loops=3, use_swap=False, reinject=reinject)
    found = recorded(pool_of, case)
    assert not [key for key in found if key.kind == Kind.ALL_TO_ALL]
    # Their sum at the end does, and what each of them says of the vocabulary.
    assert found == recorded(pool_of, replace(case, num_loops=1))


@pytest.mark.parametrize("accumulation", [1, 2])
@pytest.mark.parametrize("loops", [1, 3])
def test_weights_are_gathered_once_a_step_whatever_passes_and_accumulation(
    loops: int, accumulation: int, pool_of: PoolOf
) -> None:
    case = Case(LAYOUTS["fsdp2"], num_loops=loops, accumulation=accumulation)
    gathers = [traffic for key, traffic in recorded(pool_of, case).items() if key.kind == Kind.ALL_GATHER]
    assert [traffic.calls for traffic in gathers] == [2 * 2 + 1]


@pytest.mark.parametrize("layout", ["ddp2", "fsdp2", "hsdp2x2", "track2-fsdp2"])
def test_gradients_travel_once_a_step_whatever_accumulation(layout: str, pool_of: PoolOf) -> None:
    cases = [Case(LAYOUTS[layout], num_loops=3, accumulation=number) for number in (1, 2, 4)]
    once, *more = (
        {key: traffic for key, traffic in recorded(pool_of, case).items() if key.phase is Phase.GRADIENTS}
        for case in cases
    )
    assert once
    assert more == [once, once]


def record_unknown() -> dict[Key, Traffic]:
    """A collective among ranks that no axis joins."""
    with LedgerRecorder({}) as recorder:
        dist.all_reduce(torch.zeros(3))
        dist.barrier()
    return recorder.traffic


def test_a_group_without_an_axis_is_called_by_its_ranks(pool_of: PoolOf) -> None:
    [found, _] = pool_of(2).run(record_unknown)
    assert found == {Key(Phase.FORWARD, "ranks [0, 1]", Kind.ALL_REDUCE): Traffic(2, 1, 12)}


def test_one_byte_or_one_call_more_is_a_difference(pool_of: PoolOf) -> None:
    [[(found, predicted)], _] = pool_of(2).run(ledgers_of, [Case(LAYOUTS["track2"])])
    assert journal_values(found, predicted)["ledger_differences"] == 0
    for key, traffic in found.items():
        for other in (
            replace(traffic, payload_bytes=traffic.payload_bytes + 1),
            replace(traffic, calls=traffic.calls + 1),
        ):
            [line] = find_differences(found | {key: other}, predicted)
            assert line.startswith(" ".join(key))
    [line] = find_differences({}, {Key(Phase.NORM, "model", Kind.ALL_REDUCE): Traffic(2, 1, 8)})
    assert line == "norm model all_reduce: recorded nothing, predicted 1 calls with 8 bytes among 2 ranks"
