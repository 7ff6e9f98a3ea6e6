"""The order in which several sources take turns."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from parallax.config.data import integer_weights
from parallax.data.loader import rank_rows
from parallax.data.mixture import Mixture

weights = st.lists(st.integers(1, 40), min_size=1, max_size=7).map(
    lambda drawn: integer_weights([Fraction(weight) for weight in drawn])
)


@given(weights)
def test_every_prefix_has_each_sources_share_to_less_than_one_sample(weights: list[int]):
    mixture = Mixture(weights)
    bound = 1 - Fraction(1, 2 * len(weights) - 2) if len(weights) > 1 else 0
    sources, _ = mixture.locate(np.arange(2 * mixture.period))
    taken = [0] * len(weights)
    for length, source in enumerate(sources.tolist(), start=1):
        taken[source] += 1
        for count, weight in zip(taken, weights, strict=True):
            assert abs(count - Fraction(length * weight, mixture.period)) <= bound < 1


@given(weights, st.integers(0, 300))
def test_a_source_gives_its_samples_in_order_and_none_twice(weights: list[int], length: int):
    mixture = Mixture(weights)
    sources, numbers = mixture.locate(np.arange(length))
    for source in range(len(weights)):
        own = numbers[sources == source]
        assert own.tolist() == list(range(own.size))
    assert mixture.counts(length) == np.bincount(sources, minlength=len(weights)).tolist()


@given(weights, st.lists(st.integers(0, 10**12), min_size=1, max_size=20))
def test_a_sample_does_not_depend_on_which_others_are_asked_for(weights: list[int], indices: list[int]):
    together = np.stack(Mixture(weights).locate(indices))
    alone = [np.stack(Mixture(weights).locate(index)) for index in indices]
    assert together.T.tolist() == [pair.tolist() for pair in alone]


@given(weights, st.integers(1, 8), st.integers(1, 6), st.integers(0, 50))
def test_any_number_of_ranks_shares_out_the_same_batch(weights: list[int], ranks: int, rows: int, step: int):
    batch = np.stack(Mixture(weights).locate(np.arange(step * ranks * rows, (step + 1) * ranks * rows)), axis=1)
    parts = [batch[rank_rows(ranks * rows, rank, ranks)] for rank in range(ranks)]
    assert np.concatenate(parts).tolist() == batch.tolist()
    counts = Mixture(weights).counts((step + 1) * ranks * rows)
    shares = [Fraction((step + 1) * ranks * rows * weight, sum(weights)) for weight in weights]
    assert all(abs(count - share) < 1 for count, share in zip(counts, shares, strict=True))


@given(weights, st.integers(1, 200), st.data())
def test_the_length_that_holds_so_many_samples_of_a_source_is_the_shortest(
    weights: list[int], count: int, data: st.DataObject
):
    mixture, source = Mixture(weights), data.draw(st.integers(0, len(weights) - 1))
    length = mixture.samples_until(source, count)
    assert mixture.counts(length)[source] == count
    assert mixture.counts(length - 1)[source] == count - 1


@pytest.mark.parametrize("weights", [[], [1, 0], [2, -1]])
def test_weights_below_one_are_refused(weights: list[int]):
    with pytest.raises(ValueError, match="must be one or more whole numbers"):
        Mixture(weights)


def test_a_negative_sample_is_refused():
    with pytest.raises(ValueError, match="sample index -1 is negative"):
        Mixture([1, 2]).locate([3, -1])
