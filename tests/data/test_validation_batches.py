from collections.abc import Callable

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from parallax.data.token_split import TokenSplit
from parallax.data.validation import choose_windows, validation_batches
from parallax.errors import DataError

SplitOf = Callable[..., TokenSplit]


@given(st.integers(2, 200), st.integers(1, 20), st.integers(1, 7))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_token_but_the_first_is_predicted_once_from_the_one_before(
    split_of: SplitOf, num_tokens: int, max_seq_len: int, batch_size: int
):
    predicted: list[int] = []
    for inputs, targets in validation_batches(
        split_of(num_tokens), max_seq_len=max_seq_len, batch_size=batch_size
    ):
        assert inputs.shape == targets.shape
        assert inputs.shape[0] <= batch_size
        assert inputs.shape[1] == max_seq_len
        valid = targets != -100
        assert torch.equal(inputs[valid] + 1, targets[valid])
        predicted += targets[valid].tolist()
    assert predicted == list(range(1, num_tokens))


def test_the_last_window_is_filled_up_with_what_the_loss_ignores(split_of: SplitOf):
    [(inputs, targets)] = validation_batches(split_of(7), max_seq_len=4, batch_size=4, ignore_index=-1)
    assert inputs.tolist() == [[0, 1, 2, 3], [4, 5, 0, 0]]
    assert targets.tolist() == [[1, 2, 3, 4], [5, 6, -1, -1]]


def test_some_windows_are_evenly_spaced_and_always_the_same(split_of: SplitOf):
    split = split_of(101)
    assert choose_windows(split, 10, 2).tolist() == [2, 7]
    assert choose_windows(split, 10, 3).tolist() == [1, 5, 8]
    assert choose_windows(split, 10, 10).tolist() == list(range(10))
    assert choose_windows(split, 10, 99).tolist() == choose_windows(split, 10, None).tolist() == list(range(10))
    batches = list(validation_batches(split, max_seq_len=10, batch_size=2, max_windows=3))
    assert [inputs[:, 0].tolist() for inputs, _ in batches] == [[10, 50], [80]]


def test_a_split_with_nothing_to_predict_is_refused_before_the_first_batch(split_of: SplitOf):
    with pytest.raises(DataError, match="1 tokens leave nothing to predict"):
        validation_batches(split_of(1), max_seq_len=4, batch_size=1)
