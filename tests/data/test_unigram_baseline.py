import math

import numpy as np
import pytest

from parallax.data.unigram import unigram_baseline


def test_the_baseline_is_the_smoothed_frequencies_of_training_measured_on_the_other_split():
    nats, accuracy = unigram_baseline(np.array([5, 2, 0]), np.array([1, 0, 3]))
    assert nats == pytest.approx(-(math.log(6 / 10) + 3 * math.log(1 / 10)) / 4)
    assert accuracy == 0.25


def test_a_training_split_without_tokens_gives_the_uniform_distribution():
    assert unigram_baseline(np.zeros(8, int), np.array([1] * 8)).nats_per_token == pytest.approx(math.log(8))


def test_counts_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="different vocabularies"):
        unigram_baseline(np.ones(3, int), np.ones(4, int))
    with pytest.raises(ValueError, match="nothing to measure on"):
        unigram_baseline(np.ones(3, int), np.zeros(3, int))
