"""Global batch = micro-batch x accumulation x ranks."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parallax.config.batch import accumulation_on_ranks, nearest_triple, resolve_batch

COUNTS = st.integers(1, 300)
RANKS = st.integers(1, 40)


@given(micro=COUNTS, accumulation=st.integers(1, 20), ranks=RANKS)
def test_a_batch_that_divides_is_cut_into_its_parts(micro: int, accumulation: int, ranks: int) -> None:
    assert resolve_batch(micro * accumulation * ranks, micro, ranks) == accumulation


@given(global_batch=COUNTS, micro=COUNTS, ranks=RANKS)
def test_the_named_triple_is_valid(global_batch: int, micro: int, ranks: int) -> None:
    near_global, near_micro, accumulation = nearest_triple(global_batch, micro, ranks)
    assert near_global > 0
    assert near_micro > 0
    assert near_global == near_micro * accumulation * ranks
    assert resolve_batch(near_global, near_micro, ranks) == accumulation


@given(global_batch=COUNTS, micro=COUNTS, ranks=RANKS)
def test_no_valid_triple_is_nearer(global_batch: int, micro: int, ranks: int) -> None:
    near_global, near_micro, _ = nearest_triple(global_batch, micro, ranks)
    candidates = [
        (abs(per_rank * ranks - global_batch), abs(divisor - micro))
        for per_rank in range(1, 2 * global_batch // ranks + 2)
        for divisor in range(1, per_rank + 1)
        if per_rank % divisor == 0 and (per_rank * ranks == near_global or per_rank * ranks == global_batch)
    ]
    assert (abs(near_global - global_batch), abs(near_micro - micro)) == min(candidates)


@given(per_rank=COUNTS, micro=COUNTS, ranks=RANKS)
def test_the_global_batch_is_kept_when_the_ranks_divide_it(per_rank: int, micro: int, ranks: int) -> None:
    assert nearest_triple(per_rank * ranks, micro, ranks)[0] == per_rank * ranks


@given(global_batch=COUNTS, micro=COUNTS, ranks=RANKS)
def test_what_does_not_divide_is_refused_and_what_divides_is_not(
    global_batch: int, micro: int, ranks: int
) -> None:
    if global_batch % (micro * ranks) == 0:
        assert nearest_triple(global_batch, micro, ranks)[:2] == (global_batch, micro)
        return
    with pytest.raises(ValueError, match="nearest valid") as caught:
        resolve_batch(global_batch, micro, ranks)
    near_global, near_micro, accumulation = nearest_triple(global_batch, micro, ranks)
    expected = f"global_batch={near_global}, micro_batch={near_micro}, accumulation={accumulation}"
    assert str(caught.value).endswith(expected)
    assert f"global_batch={global_batch} is not a multiple of micro_batch={micro}" in str(caught.value)


@pytest.mark.parametrize(
    ("asked", "nearest"),
    [
        ((16, 5, 1), (16, 4, 4)),
        ((16, 6, 1), (16, 4, 4)),
        ((7, 3, 1), (7, 1, 7)),
        ((16, 32, 1), (16, 16, 1)),
        ((16, 4, 3), (15, 5, 1)),
        ((3, 1, 8), (8, 1, 1)),
    ],
)
def test_examples_worked_by_hand(asked: tuple[int, int, int], nearest: tuple[int, int, int]) -> None:
    assert nearest_triple(*asked) == nearest


def test_several_ranks_are_named_in_the_refusal() -> None:
    with pytest.raises(ValueError, match="micro_batch=4 on 3 data-parallel ranks"):
        resolve_batch(16, 4, 3)


def test_a_rank_whose_share_is_smaller_than_a_micro_batch_takes_it_as_one() -> None:
    assert accumulation_on_ranks(32, 32, 4) == 1
    assert accumulation_on_ranks(32, 4, 4) == 2
    with pytest.raises(ValueError, match="global_batch=32"):
        accumulation_on_ranks(32, 3, 4)
