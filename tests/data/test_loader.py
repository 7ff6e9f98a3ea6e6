from collections.abc import Callable

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from parallax.data.loader import Loader, LoaderSource, rank_rows
from parallax.data.token_split import TokenSplit
from parallax.errors import DataError

SETTINGS = {"max_seq_len": 8, "seed": 1}


@pytest.fixture
def make_loader(split_of: Callable[..., TokenSplit]) -> Callable[..., Loader]:
    """A loader over 1000 tokens, each its own position; keyword arguments change its settings."""

    def make(fingerprint: str = "abc", **changes: object) -> Loader:
        return Loader([LoaderSource(split_of(1000), fingerprint)], **{**SETTINGS, **changes})

    return make


def test_samples_are_windows_of_consecutive_tokens(make_loader: Callable[..., Loader]):
    samples = make_loader().samples(0, 5)
    assert samples.shape == (5, 9)
    assert samples.dtype == torch.int64
    assert torch.equal(samples - samples[:, :1], torch.arange(9).expand(5, 9))


def test_an_epoch_visits_every_window_and_the_next_one_does_so_in_another_order(
    make_loader: Callable[..., Loader],
):
    loader = make_loader()
    num = loader.samples_per_epoch
    assert num == (1000 - 8) // 8
    first, second = loader.samples(0, num)[:, 0], loader.samples(num, num)[:, 0]
    for epoch in (first, second):
        assert torch.equal((epoch.sort().values - epoch.min()), 8 * torch.arange(num))
    assert not torch.equal(first - first.min(), second - second.min())


@given(st.lists(st.integers(0, 30), max_size=6))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_cursor_walks_through_the_samples_in_portions_of_any_size(
    make_loader: Callable[..., Loader], counts: list[int]
):
    loader = make_loader()
    walked = [loader.next(count) for count in counts]
    assert loader.cursor == sum(counts)
    assert torch.equal(torch.cat([torch.empty(0, 9, dtype=torch.int64), *walked]), loader.samples(0, sum(counts)))


def test_a_restored_loader_goes_on_where_the_saved_one_would(make_loader: Callable[..., Loader]):
    loader = make_loader()
    loader.next(150)
    state = loader.state_dict()
    expected = loader.next(20)
    again = make_loader()
    again.load_state_dict(state)
    assert torch.equal(again.next(20), expected)
    assert state == {"cursor": 150, "seed": 1, "fingerprint": "abc", "max_seq_len": 8, "limit_samples": None}


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"seed": 2}, "seed=1, this run has seed=2"),
        ({"fingerprint": "def"}, "fingerprint='abc', this run has fingerprint='def'"),
        ({"max_seq_len": 16}, "max_seq_len=8, this run has max_seq_len=16"),
        ({"limit_samples": 4}, "limit_samples=None, this run has limit_samples=4"),
    ],
)
def test_a_position_in_other_data_is_refused_and_the_cursor_stays(
    make_loader: Callable[..., Loader], change: dict[str, object], complaint: str
):
    loader = make_loader(**change)
    with pytest.raises(DataError, match=complaint):
        loader.load_state_dict({**make_loader().state_dict(), "cursor": 99})
    assert loader.cursor == 0


def test_a_limited_loader_repeats_the_first_samples(make_loader: Callable[..., Loader]):
    limited = make_loader(limit_samples=3)
    assert limited.samples_per_epoch == 3
    assert torch.equal(limited.samples(0, 9), make_loader().samples(0, 3).repeat(3, 1))
    assert torch.equal(limited.samples(4, 1), make_loader().samples(1, 1))


def test_a_limit_above_the_windows_does_not_make_the_epoch_longer(make_loader: Callable[..., Loader]):
    assert make_loader(limit_samples=10_000).samples_per_epoch == make_loader().samples_per_epoch
    with pytest.raises(ValueError, match="limit_samples=0"):
        make_loader(limit_samples=0)


@pytest.mark.parametrize("world_size", [1, 2, 3, 6])
def test_the_rows_of_the_ranks_are_the_global_batch(make_loader: Callable[..., Loader], world_size: int):
    batch = make_loader().samples(0, 6)
    rows = [batch[rank_rows(6, rank, world_size)] for rank in range(world_size)]
    assert {len(part) for part in rows} == {6 // world_size}
    assert torch.equal(torch.cat(rows), batch)


@pytest.mark.parametrize(("rank", "world_size"), [(0, 4), (2, 2), (-1, 2)])
def test_rows_without_an_equal_share_are_refused(rank: int, world_size: int):
    with pytest.raises(ValueError, match="global_batch=6"):
        rank_rows(6, rank, world_size)
