from collections import Counter
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from parallax.data.hashing import hash_integers, mix64
from parallax.data.loader import rank_rows
from parallax.data.order import SampleOrder

seeds = st.integers(0, 2**70)


@given(st.integers(1, 5000), seeds, st.integers(0, 10**6))
def test_every_window_is_visited_once_an_epoch(num_windows: int, seed: int, epoch: int):
    first = epoch * num_windows
    epochs, windows = SampleOrder(num_windows, seed).locate(np.arange(first, first + num_windows))
    assert set(epochs.tolist()) == {epoch}
    assert sorted(windows.tolist()) == list(range(num_windows))


@given(st.integers(1, 2**40), seeds, st.lists(st.integers(0, 2**60), min_size=1, max_size=20))
def test_a_sample_depends_on_seed_and_index_alone(num_windows: int, seed: int, index: list[int]):
    epochs, windows = SampleOrder(num_windows, seed).locate(index)
    for at, epoch, window in zip(index, epochs.tolist(), windows.tolist(), strict=True):
        assert [int(part[0]) for part in SampleOrder(num_windows, seed).locate([at])] == [epoch, window]
        assert epoch == at // num_windows
        assert 0 <= window < num_windows


@given(st.integers(1, 60), st.sampled_from([1, 2, 3, 4, 8]), st.integers(1, 3), seeds)
def test_the_ranks_of_any_world_see_every_window_once_an_epoch(num_windows: int, world: int, rows: int, seed: int):
    order = SampleOrder(num_windows, seed)
    batch = world * rows
    steps = np.arange(num_windows * batch).reshape(num_windows, batch)
    seen: Counter[tuple[int, int]] = Counter()
    for rank in range(world):
        epochs, windows = order.locate(steps[:, rank_rows(batch, rank, world)])
        seen.update(zip(epochs.reshape(-1).tolist(), windows.reshape(-1).tolist(), strict=True))
    assert seen == Counter((epoch, window) for epoch in range(batch) for window in range(num_windows))


def test_the_order_is_what_it_was_when_runs_were_first_made():
    """A change here makes a run that continues see other samples than it would have seen."""
    assert SampleOrder(10, 0).locate(range(10))[1].tolist() == [9, 4, 2, 3, 1, 7, 6, 8, 5, 0]
    assert SampleOrder(2**40, 7).locate([0, 1, 2**41])[1].tolist() == [575696469249, 859875982077, 383263311619]


@pytest.mark.parametrize("num_windows", [3, 4])
def test_few_windows_come_in_every_order_equally_often(num_windows: int):
    epochs = 6000
    windows = SampleOrder(num_windows, 1).locate(np.arange(epochs * num_windows))[1].reshape(epochs, num_windows)
    found = Counter(map(tuple, windows.tolist()))
    expected = epochs / len(list(permutations(range(num_windows))))
    chi_square = sum((found[order] - expected) ** 2 / expected for order in permutations(range(num_windows)))
    assert chi_square < {3: 25.7, 4: 59.7}[num_windows]  # exceeded by chance in 1 of 10,000


@pytest.mark.parametrize("num_windows", [1000, 4096, 100_003])
def test_neither_neighbours_nor_epochs_nor_seeds_resemble_each_other(num_windows: int):
    def windows(seed: int, epoch: int) -> np.ndarray:
        first = epoch * num_windows
        return SampleOrder(num_windows, seed).locate(np.arange(first, first + num_windows))[1]

    base = windows(0, 0)
    limit = 4.5 / num_windows**0.5
    assert abs(np.corrcoef(base, np.arange(num_windows))[0, 1]) < limit
    for lag in (1, 2, 3, 16, 32):
        assert abs(np.corrcoef(base[:-lag], base[lag:])[0, 1]) < limit
    for other in (windows(0, 1), windows(0, 2), windows(1, 0), windows(2, 0)):
        assert abs(np.corrcoef(base, other)[0, 1]) < limit
        # Fixed points of a random permutation are Poisson(1); 12 or more are one in a hundred million.
        assert (base == other).sum() < 12
    steps = Counter(np.diff(base).tolist())
    # A step d is expected (n - |d|) / n times; an order with structure repeats some step very often.
    assert max(steps.values()) < 14


def test_the_first_samples_of_an_epoch_are_spread_over_the_whole_split():
    windows = SampleOrder(1 << 30, 3).locate(np.arange(64_000))[1]
    counts = np.histogram(windows, bins=64, range=(0, 1 << 30))[0]
    assert ((counts - 1000) ** 2 / 1000).sum() < 118  # chi-square of 63 degrees, 1 of 20,000


def test_the_shape_of_the_question_is_the_shape_of_the_answer():
    order = SampleOrder(10, 0)
    epochs, windows = order.locate(np.arange(24).reshape(2, 3, 4))
    assert epochs.shape == windows.shape == (2, 3, 4)
    assert order.locate([])[1].shape == (0,)
    assert windows.reshape(-1).tolist() == order.locate(np.arange(24))[1].tolist()


def test_impossible_questions_are_refused():
    with pytest.raises(ValueError, match="num_windows=0"):
        SampleOrder(0, 0)
    with pytest.raises(ValueError, match="sample index -3 is negative"):
        SampleOrder(5, 0).locate([1, -3])


def test_the_hash_is_splitmix64():
    """First outputs of the published generator seeded with 1234567."""
    step = 0x9E3779B97F4A7C15
    states = [(1234567 + n * step) % 2**64 for n in range(3)]
    assert mix64(np.array(states, dtype=np.uint64)).tolist() == [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
    ]


def test_the_hash_of_numbers_depends_on_each_and_on_their_order():
    assert hash_integers(1234567) == int(mix64(np.array([1234567], dtype=np.uint64))[0])
    assert len({hash_integers(*numbers) for numbers in [(1, 2), (2, 1), (1,), (2,), (1, 2, 0), (1, 3), ()]}) == 7
