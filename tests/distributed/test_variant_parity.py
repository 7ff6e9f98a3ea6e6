"""The GPT-2 family over several ranks: losses, every gradient, norms and weights of one process."""

from collections.abc import Callable

import pytest
from cases import LAYOUTS, PARALLEL, VARIANTS
from parity import Case, Differences, compare, train_two_steps
from worker_pool import WorkerPool

EXACT = 1e-10
PoolOf = Callable[[int], WorkerPool]


def found_over(pool_of: PoolOf, case: Case) -> Differences:
    return compare(case, pool_of(case.layout.world_size).run(train_two_steps, case))


def assert_exact(found: Differences) -> None:
    assert max(found.loss, found.gradient, found.norm, found.weights) < EXACT, found
    assert found.ledger == 0


@pytest.mark.parametrize("overlap", [False, True], ids=["whole", "overlap"])
@pytest.mark.parametrize("shared", ["vocab_split", "copy_reduce"])
@pytest.mark.parametrize("variant", PARALLEL)
def test_the_two_blocks_of_a_pair_train_on_two_ranks(
    variant: str, shared: str, overlap: bool, pool_of: PoolOf
) -> None:
    case = Case(
        layout=LAYOUTS["track2"],
        shared=shared,  # type: ignore[arg-type]
        variant=variant,
        overlap=overlap,
        dropout=0.1 if overlap else 0.0,
        accumulation=2,
    )
    assert_exact(found_over(pool_of, case))


@pytest.mark.parametrize("layout", ["track2-ddp2", "track2-fsdp2", "track2-across-fsdp2"])
def test_two_ranks_a_pair_and_two_replicas_or_shards(layout: str, pool_of: PoolOf) -> None:
    case = Case(layout=LAYOUTS[layout], variant="concat", overlap=True, dropout=0.1, accumulation=2)
    assert_exact(found_over(pool_of, case))


@pytest.mark.parametrize("layout", ["ddp2", "fsdp2"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_trains_over_replicas_and_shards(variant: str, layout: str, pool_of: PoolOf) -> None:
    case = Case(layout=LAYOUTS[layout], variant=variant, dropout=0.1, activation_checkpointing=True)
    assert_exact(found_over(pool_of, case))


@pytest.mark.parametrize("accumulation", [1, 2])
@pytest.mark.parametrize("variant", ["concat", "duo strict"])
def test_weights_gathered_again_after_each_forward(variant: str, accumulation: int, pool_of: PoolOf) -> None:
    case = Case(layout=LAYOUTS["fsdp2"], variant=variant, accumulation=accumulation, reshard_after_forward=True)
    assert_exact(found_over(pool_of, case))


@pytest.mark.parametrize("trained", [("tracks.1.*", "norm.*"), ("biases.*",), ("positions.weight",)], ids=str)
@pytest.mark.parametrize("shared", ["vocab_split", "copy_reduce"])
def test_a_rank_that_trains_nothing_of_its_track(shared: str, trained: tuple[str, ...], pool_of: PoolOf) -> None:
    case = Case(layout=LAYOUTS["track2"], shared=shared, variant="concat", trained=trained)  # type: ignore[arg-type]
    assert_exact(found_over(pool_of, case))
