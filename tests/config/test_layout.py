"""How a configuration becomes axes, and what is said when it cannot."""

import re
from itertools import product

import pytest

from parallax.config.layout import Layout, resolve_layout
from parallax.config.parallel import ParallelConfig
from parallax.errors import ConfigError


def test_ranks_that_nobody_asked_for_hold_copies() -> None:
    config = ParallelConfig(track=2, dp_shard=2, order="track_across")
    assert resolve_layout(config, num_tracks=4, world_size=12) == Layout(2, 3, 2, track_across=True)
    assert resolve_layout(ParallelConfig(), num_tracks=2, world_size=1) == Layout(1, 1, 1)


@pytest.mark.parametrize(
    ("asked", "num_tracks", "world_size", "message"),
    [
        (
            {"track": 3},
            4,
            3,
            "parallel.track=3 does not divide model.num_tracks=4; nearest that does: 2",
        ),
        (
            {"track": 2, "dp_shard": 2},
            2,
            6,
            "parallel.track=2 x dp_shard=2 x dp_replicate=1 is 4, and the run has 6 ranks; "
            "nearest: track=2 dp_shard=1 dp_replicate=3, or start 8 ranks",
        ),
        (
            {"track": 2, "dp_replicate": 4},
            2,
            4,
            "parallel.track=2 x dp_shard=1 x dp_replicate=4 is 8, and the run has 4 ranks; "
            "nearest: track=2 dp_shard=1 dp_replicate=2, or start 8 ranks",
        ),
        (
            {"track": 2},
            2,
            1,
            "parallel.track=2 x dp_shard=1 x dp_replicate=1 is 2, and the run has 1 ranks; "
            "nearest: track=1 dp_shard=1 dp_replicate=1, or start 2 ranks",
        ),
    ],
)
def test_an_impossible_product_is_refused_with_the_nearest(
    asked: dict, num_tracks: int, world_size: int, message: str
) -> None:
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        resolve_layout(ParallelConfig(**asked), num_tracks, world_size)


def refusal(config: ParallelConfig, num_tracks: int, world_size: int) -> str | None:
    try:
        assert resolve_layout(config, num_tracks, world_size).world_size == world_size
    except ConfigError as error:
        return str(error)
    return None


def test_whatever_is_named_as_the_nearest_works() -> None:
    names = ("track", "dp_shard", "dp_replicate")
    asked = product((1, 2, 4), (1, 2, 3), (None, 1, 3), range(1, 13))
    messages = []
    for *sizes, world in asked:
        config = ParallelConfig(**dict(zip(names, sizes, strict=True)))
        message = refusal(config, 4, world)
        if message is None:
            continue
        messages.append(message)
        nearest = re.search(
            r"nearest: track=(\d+) dp_shard=(\d+) dp_replicate=(\d+), or start (\d+) ranks", message
        )
        assert nearest, message
        *better, ranks = map(int, nearest.groups())
        assert refusal(ParallelConfig(**dict(zip(names, better, strict=True))), 4, world) is None
        assert refusal(config, 4, ranks) is None
    assert messages
