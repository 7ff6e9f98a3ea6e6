"""CKA, cosines and intervals against their definitions."""

from itertools import permutations

import numpy as np
import pytest
import torch
from scipy import stats

from evaluation.jackknife import jackknife, ratio
from evaluation.tracks.similarity import cka, cosine_sums, hsic, hsic_sums


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_hsic_is_the_mean_of_its_kernel_over_all_quadruples_of_different_tokens() -> None:
    states = normal(2, 6, 3) + 5.0
    a, b = (np.array([[float(u @ v) for v in x] for u in x]) for x in states)
    terms = [a[i, j] * (b[i, j] + b[q, r] - 2 * b[i, q]) for i, j, q, r in permutations(range(6), 4)]
    assert hsic(states)[0, 1].item() == pytest.approx(np.mean(terms), rel=1e-9)
    assert hsic(states)[1, 0] == hsic(states)[0, 1]


def test_a_rotation_and_a_scale_are_not_seen_by_cka() -> None:
    x = normal(40, 5)
    rotation = torch.linalg.qr(normal(5, 5, seed=1)).Q
    found = cka(hsic(torch.stack((x, x, 3 * x @ rotation + 7))).numpy())
    assert found == pytest.approx(np.ones((3, 3)), abs=1e-9)


def test_unrelated_states_have_a_cka_of_zero_on_average_even_with_few_tokens() -> None:
    draws = [cka(hsic(normal(2, 12, 30, seed=seed)).numpy())[0, 1] for seed in range(300)]
    assert abs(np.mean(draws)) < 4 * np.std(draws) / np.sqrt(300)
    plain = []
    for seed in range(20):
        x, y = (part - part.mean(0) for part in normal(2, 12, 30, seed=seed))
        plain.append(float((x.T @ y).norm() ** 2 / ((x.T @ x).norm() * (y.T @ y).norm())))
    assert np.mean(plain) > 0.5, "the plain estimator would call them alike"


def test_a_state_that_does_not_vary_has_no_cka() -> None:
    states = torch.stack((normal(9, 4), torch.ones(9, 4, dtype=torch.float64)))
    found = cka(hsic(states).numpy())
    assert np.isnan(found[0, 1])
    assert found[0, 0] == pytest.approx(1.0)


def test_a_window_is_compared_in_pieces_that_count_by_their_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("evaluation.tracks.similarity.PIECE_TOKENS", 8)
    states = normal(2, 23, 4)
    expected = 8 * hsic(states[:, :8]) + 8 * hsic(states[:, 8:16]) + 7 * hsic(states[:, 16:])
    assert torch.allclose(hsic_sums(states), expected)
    assert torch.allclose(hsic_sums(states[:, :18]), 8 * hsic(states[:, :8]) + 8 * hsic(states[:, 8:16]))


def test_cosines_are_those_of_each_token() -> None:
    states = normal(2, 7, 4)
    x, y = states
    expected = sum(float(a @ b / (a.norm() * b.norm())) for a, b in zip(x, y, strict=True))
    assert cosine_sums(states)[0, 1].item() == pytest.approx(expected)
    assert cosine_sums(states)[0, 0].item() == pytest.approx(7)


def test_the_interval_of_a_mean_is_the_t_interval() -> None:
    values = np.random.default_rng(0).normal(size=9)
    found = jackknife([values, np.ones(9)], ratio).at()
    low, high = stats.ttest_1samp(values, 0.0).confidence_interval(0.95)
    assert found == pytest.approx((values.mean(), low, high))


def test_the_interval_of_a_ratio_holds_the_truth_as_often_as_it_says() -> None:
    rng = np.random.default_rng(1)
    counts = rng.integers(5, 40, size=(20, 2000)).astype(float)
    sums = counts * 2.0 + rng.normal(size=counts.shape) * np.sqrt(counts)
    found = jackknife([sums, counts], ratio)
    held = np.mean((found.low <= 2.0) & (found.high >= 2.0))
    assert 0.93 < held < 0.97


def test_one_window_gives_no_interval() -> None:
    with pytest.raises(ValueError, match="1 windows have no spread"):
        jackknife([np.ones(1)], np.asarray)
