from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from parallax.data.token_split import TokenSplit
from parallax.data.windows import Windows
from parallax.errors import DataError

SplitOf = Callable[..., TokenSplit]
relaxed = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


@given(st.integers(1, 40), st.integers(1, 400), st.integers(0, 2**64), st.integers(0, 1000))
@relaxed
def test_windows_follow_each_other_at_stride_t_and_share_one_token(
    split_of: SplitOf, max_seq_len: int, extra: int, seed: int, epoch: int
):
    split = split_of(max_seq_len + extra)
    windows = Windows(split, max_seq_len, seed)
    offset = windows.offset(epoch)
    assert 0 <= offset < 2 * max_seq_len
    for window in range(windows.num_windows):
        start = offset + window * max_seq_len
        assert windows.read(epoch, window).tolist() == list(range(start, start + max_seq_len + 1))


@given(st.integers(1, 40), st.integers(1, 400), st.integers(0, 2**64))
@relaxed
def test_an_epoch_sees_no_target_twice_and_drops_fewer_than_two_windows_of_them(
    split_of: SplitOf, max_seq_len: int, extra: int, seed: int
):
    windows = Windows(split_of(max_seq_len + extra), max_seq_len, seed)
    targets = [token for n in range(windows.num_windows) for token in windows.read(0, n)[1:].tolist()]
    assert len(set(targets)) == len(targets)
    assert 0 <= (max_seq_len + extra - 1) - len(targets) < 2 * max_seq_len


@pytest.mark.parametrize("num_tokens", [9, 12, 15, 16, 17, 23, 24, 25, 100])
def test_over_the_epochs_every_token_but_the_first_is_a_target(split_of: SplitOf, num_tokens: int):
    windows = Windows(split_of(num_tokens), 8, seed=3)
    seen: set[int] = set()
    for epoch in range(200):
        for window in range(windows.num_windows):
            seen.update(windows.read(epoch, window)[1:].tolist())
    assert seen == set(range(1, num_tokens))


def test_the_offset_is_a_pure_function_of_seed_and_epoch_and_moves(split_of: SplitOf):
    split = split_of(1000)
    offsets = [Windows(split, 16, seed=5).offset(epoch) for epoch in range(400)]
    assert offsets == [Windows(split, 16, seed=5).offset(epoch) for epoch in range(400)]
    assert set(offsets) == set(range(1000 - (1000 - 16) // 16 * 16))
    assert offsets != [Windows(split, 16, seed=6).offset(epoch) for epoch in range(400)]


def test_a_split_of_exactly_one_window_is_that_window(split_of: SplitOf):
    windows = Windows(split_of(9), 8, seed=0)
    assert windows.num_windows == 1
    assert {tuple(windows.read(epoch, 0).tolist()) for epoch in range(20)} == {tuple(range(9))}


def test_a_split_shorter_than_one_window_is_refused_with_the_numbers_and_the_way_out(split_of: SplitOf):
    with pytest.raises(DataError, match=r"8 tokens are fewer than .* = 9; .*set model\.max_seq_len=7 or less"):
        Windows(split_of(8), 8, seed=0)


def test_there_is_no_window_beyond_the_last(split_of: SplitOf):
    windows = Windows(split_of(100), 8, seed=0)
    for window in (-1, windows.num_windows):
        with pytest.raises(IndexError):
            windows.read(0, window)
