"""Every layout trains exactly as one process: loss, every gradient, the norm, the weights after two steps."""

from collections.abc import Callable
from itertools import product

import pytest
from cases import FACTORS, LAYOUTS, case_of, pair_rows, pairs_of
from parity import Case, compare, train_two_steps
from worker_pool import WorkerPool

EXACT = 1e-10


def _named(row: tuple) -> str:
    (layout, shared), loops, multiple, accumulation, tie, reshard = row
    words = [layout, shared, f"R{loops}", f"Kx{multiple}", f"acc{accumulation}"]
    return "-".join([*words, *["tied"] * tie, *["resharded"] * reshard])


def test_every_pair_of_factors_occurs() -> None:
    assert pairs_of(pair_rows()) == pairs_of(product(*FACTORS))


@pytest.mark.parametrize("row", pair_rows(), ids=_named)
def test_two_steps_equal_one_process_and_the_ledger_its_formula(
    row: tuple, pool_of: Callable[[int], WorkerPool]
) -> None:
    case = case_of(row)
    found = compare(case, pool_of(case.layout.world_size).run(train_two_steps, case))
    assert max(found.loss, found.gradient, found.norm, found.weights) < EXACT, found
    assert found.ledger == 0


@pytest.mark.parametrize(
    "trained", [("tracks.1.*", "norm.weight"), ("head.weight",), ("norm.weight",), ("embedding.weight",)], ids=str
)
@pytest.mark.parametrize("shared", ["vocab_split", "copy_reduce"])
def test_two_steps_where_a_rank_trains_nothing_of_its_tracks(
    shared: str, trained: tuple[str, ...], pool_of: Callable[[int], WorkerPool]
) -> None:
    case = Case(layout=LAYOUTS["track2"], shared=shared, trained=trained)  # type: ignore[arg-type]
    found = compare(case, pool_of(2).run(train_two_steps, case))
    assert max(found.loss, found.gradient, found.norm, found.weights) < EXACT, found
    assert found.ledger == 0


@pytest.mark.parametrize(("use_swap", "reinject"), [(True, False), (False, True), (False, False)])
@pytest.mark.parametrize("layout", ["track2", "track2-fsdp2"])
def test_two_steps_whatever_a_track_reads_between_passes(
    layout: str, use_swap: bool, reinject: bool, pool_of: Callable[[int], WorkerPool]
) -> None:
    case = Case(layout=LAYOUTS[layout], num_tracks=4, num_loops=3, use_swap=use_swap, reinject=reinject)
    found = compare(case, pool_of(case.layout.world_size).run(train_two_steps, case))
    assert max(found.loss, found.gradient, found.norm, found.weights) < EXACT, found
    assert found.ledger == 0


@pytest.mark.parametrize("num_tracks", [2, 4])
@pytest.mark.parametrize("num_loops", [1, 2, 3])
@pytest.mark.parametrize("layout", ["track2", "track2-fsdp2"])
def test_two_steps_with_swaps_under_way_while_the_other_half_computes(
    layout: str, num_loops: int, num_tracks: int, pool_of: Callable[[int], WorkerPool]
) -> None:
    case = Case(layout=LAYOUTS[layout], num_tracks=num_tracks, num_loops=num_loops, overlap=True, dropout=0.1)
    found = compare(case, pool_of(case.layout.world_size).run(train_two_steps, case))
    assert max(found.loss, found.gradient, found.norm, found.weights) < EXACT, found
    assert found.ledger == 0


@pytest.mark.parametrize("accumulation", [1, 2])
@pytest.mark.parametrize("layout", ["track2", "track2-ddp2", "fsdp2", "hsdp2x2"])
def test_two_steps_with_dropout(layout: str, accumulation: int, pool_of: Callable[[int], WorkerPool]) -> None:
    """Every rank draws the masks that one process draws for the same samples and tracks."""
    case = Case(layout=LAYOUTS[layout], accumulation=accumulation, dropout=0.1, activation_checkpointing=True)
    found = compare(case, pool_of(case.layout.world_size).run(train_two_steps, case))
    assert max(found.loss, found.gradient, found.norm, found.weights) < EXACT, found
