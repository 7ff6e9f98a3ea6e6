"""Samples from several sources under one cursor."""

from collections.abc import Callable

import pytest
import torch

from parallax.data.loader import Loader, LoaderSource
from parallax.data.token_split import TokenSplit
from parallax.errors import DataError

MakeLoader = Callable[..., Loader]


@pytest.fixture
def make_loader(split_of: Callable[..., TokenSplit]) -> MakeLoader:
    """Three quarters of tokens 0 … 999 and a quarter of 5000 … 5099; keyword arguments change the settings."""
    main, other = split_of(1000), split_of(list(range(5000, 5100)))

    def make(weights: tuple[int, ...] = (3, 1), fingerprints: tuple[str, ...] = ("a", "b"), **changes) -> Loader:
        splits = zip((main, other), fingerprints, weights, strict=True)
        sources = [LoaderSource(split, fingerprint, weight) for split, fingerprint, weight in splits]
        return Loader(sources, **{"max_seq_len": 8, "seed": 1, **changes})

    return make


def test_the_main_source_gives_the_samples_it_gives_alone(
    make_loader: MakeLoader, split_of: Callable[..., TokenSplit]
):
    mixed = make_loader().samples(0, 400)
    own = mixed[mixed[:, 0] < 5000]
    alone = Loader([LoaderSource(split_of(1000), "a")], max_seq_len=8, seed=1)
    assert len(own) == 300
    assert torch.equal(own, alone.samples(0, 300))


def test_each_source_has_epochs_of_its_own(make_loader: MakeLoader):
    loader = make_loader()
    assert loader.num_windows == [124, 11]
    mixed = loader.samples(0, 8 * 11)
    other = mixed[mixed[:, 0] >= 5000][:, 0]
    first, second = other[:11], other[11:22]
    for epoch in (first, second):
        assert torch.equal(epoch.sort().values - epoch.min(), 8 * torch.arange(11))
    assert not torch.equal(first - first.min(), second - second.min())


def test_an_epoch_ends_with_the_last_window_of_the_main_source(make_loader: MakeLoader):
    loader = make_loader()
    epoch = loader.samples_per_epoch
    assert epoch == pytest.approx(124 * 4 / 3, abs=1.5)
    assert loader.source_counts(epoch)[0] == 124
    assert loader.source_counts(epoch - 1)[0] == 123
    assert make_loader(limit_samples=50).samples_per_epoch == 50


def test_limited_samples_are_counted_as_often_as_they_come(make_loader: MakeLoader):
    loader = make_loader(limit_samples=6)
    samples = loader.samples(0, 20)
    other = int((samples[:, 0] >= 5000).sum())
    assert loader.source_counts(20) == [20 - other, other]


def test_a_restored_loader_goes_on_where_the_saved_one_would(make_loader: MakeLoader):
    loader = make_loader()
    loader.next(157)
    state = loader.state_dict()
    expected = loader.next(20)
    again = make_loader()
    again.load_state_dict(state)
    assert torch.equal(again.next(20), expected)
    assert state["cursor"] == 157


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"weights": (2, 1)}, r"weights=\[3, 1\], this run has weights=\[2, 1\]"),
        ({"fingerprints": ("a", "c")}, r"fingerprint=\['a', 'b'\], this run has fingerprint=\['a', 'c'\]"),
        ({"fingerprints": ("b", "a")}, r"fingerprint=\['a', 'b'\], this run has fingerprint=\['b', 'a'\]"),
    ],
)
def test_a_position_in_another_mixture_is_refused(make_loader: MakeLoader, changes: dict, complaint: str):
    loader = make_loader(**changes)
    with pytest.raises(DataError, match=complaint):
        loader.load_state_dict({**make_loader().state_dict(), "cursor": 9})
    assert loader.cursor == 0


def test_a_mixture_is_not_continued_with_one_source_nor_the_other_way_round(
    make_loader: MakeLoader, split_of: Callable[..., TokenSplit]
):
    mixed, alone = make_loader(), Loader([LoaderSource(split_of(1000), "a")], max_seq_len=8, seed=1)
    for ours, theirs in ((mixed, alone), (alone, mixed)):
        with pytest.raises(DataError, match="fingerprint="):
            ours.load_state_dict(theirs.state_dict())
