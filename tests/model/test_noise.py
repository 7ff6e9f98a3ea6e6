"""Dropout masks: pure functions of (seed, sample, site, place), and as good as drawn independently."""

import itertools
import math
import shutil

import pytest
import torch
from torch import Tensor

from parallax.model.noise import block_keys, drop, embedding_key, row_keys
from parallax.runtime.seeds import derive_seed

TOKENS, WIDTH = 64, 256


def kept(key: Tensor, share: float = 0.5, tokens: int = TOKENS, width: int = WIDTH) -> Tensor:
    """The (B, T, D) mask, as ones and zeros."""
    return (drop(torch.ones(len(key), tokens, width), share, key) != 0).double()


def of_samples(*samples: int, seed: int = 0) -> Tensor:
    return kept(embedding_key(row_keys(seed, samples)))


def assert_unrelated(one: Tensor, other: Tensor, share: float = 0.5) -> None:
    """The correlation of two masks is within five standard errors of 0."""
    error = 1 / math.sqrt(one.numel())
    correlation = ((one - 1 + share) * (other - 1 + share)).mean() / (share * (1 - share))
    assert abs(float(correlation)) < 5 * error


def test_a_mask_knows_neither_its_batch_mates_nor_its_place_among_them() -> None:
    together = of_samples(3, 8, 5)
    for place, sample in enumerate((3, 8, 5)):
        assert torch.equal(together[place : place + 1], of_samples(sample))


def test_a_shorter_row_has_the_beginning_of_the_mask() -> None:
    key = embedding_key(row_keys(0, [4, 9]))
    assert torch.equal(kept(key, tokens=11), kept(key)[:, :11])


def test_a_mask_neither_reads_nor_moves_the_global_random_state() -> None:
    torch.manual_seed(0)
    first, before = of_samples(1), torch.get_rng_state()
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(1)
    assert torch.equal(of_samples(1), first)


def test_masks_do_not_change_between_releases() -> None:
    """They are those of the formulas in unsigned integers of any size: a run goes on with what it began with."""
    (row,) = row_keys(17, [3]).tolist()
    assert row == derive_seed(17, "noise", 3)
    found = kept(
        torch.cat([embedding_key(row_keys(17, [3])), block_keys(row_keys(17, [3]), 1, 2, 3)[1, 2, 1]]), 0.4
    )
    for mask, site in zip(found, (0, 1 + ((1 * 2 + 1) * 3 + 2) * 2 + 1), strict=True):
        expected = [[restated(row, site, t, d, 0.4) for d in range(9)] for t in range(5)]
        assert mask[:5, :9].tolist() == expected


def restated(row: int, site: int, token: int, column: int, share: float) -> bool:
    z = (row + (site + 1) * 0x9E3779B97F4A7C15) % 2**64
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB % 2**64
    z ^= z >> 31
    y = (mixed(z % 2**32 ^ token) ^ mixed((z >> 32) ^ column)) * 0x21F0AAAD % 2**32
    h = (y ^ (y >> 15)) * 0x735A2D97 % 2**32
    return (h + 2**31) % 2**32 >= share * 2**32


def mixed(x: int) -> int:
    x = (x ^ (x >> 16)) * 0x21F0AAAD % 2**32
    x = (x ^ (x >> 15)) * 0x735A2D97 % 2**32
    return x ^ (x >> 15)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9])
def test_the_stated_share_is_dropped(share: float) -> None:
    mask = kept(embedding_key(row_keys(0, range(16))), share)
    error = math.sqrt(share * (1 - share) / mask.numel())
    assert abs(float(mask.mean()) - (1 - share)) <= 5 * error


def test_every_row_every_token_and_every_channel_loses_its_share() -> None:
    mask = kept(embedding_key(row_keys(0, range(64))), 0.1)
    for others in itertools.combinations(range(3), 2):
        rates = mask.mean(others)
        error = math.sqrt(0.1 * 0.9 / (mask.numel() / len(rates)))
        assert float((rates - 0.9).abs().max()) < 5 * error
        assert 0.7 < float(rates.std()) / error < 1.3, "the rates spread as those of independent draws do"


def test_kept_values_are_scaled_and_gradients_go_where_values_went() -> None:
    x = torch.randn(2, TOKENS, WIDTH, dtype=torch.float64, requires_grad=True)
    key = embedding_key(row_keys(0, [0, 1]))
    dropped = drop(x, 0.2, key)
    mask = kept(key, 0.2)
    torch.testing.assert_close(dropped, x * mask / 0.8)
    dropped.sum().backward()
    torch.testing.assert_close(x.grad, mask / 0.8)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_the_type_is_kept_and_the_mask_is_the_same_in_all(dtype: torch.dtype) -> None:
    key = embedding_key(row_keys(0, [0]))
    dropped = drop(torch.ones(1, TOKENS, WIDTH, dtype=dtype), 0.3, key)
    assert dropped.dtype == dtype
    assert torch.equal((dropped != 0).double(), kept(key, 0.3))


def test_a_larger_share_drops_what_a_smaller_one_does_and_more() -> None:
    key = embedding_key(row_keys(0, [0]))
    assert (kept(key, 0.6) <= kept(key, 0.3)).all()


@pytest.mark.parametrize(
    ("tokens", "columns"), [(1, 0), (0, 1), (1, 1), (2, 0), (0, 2), (16, 0), (0, 16), (0, 128)]
)
def test_neighbouring_elements_are_unrelated(tokens: int, columns: int) -> None:
    mask = of_samples(*range(16))
    assert_unrelated(mask[:, tokens:, columns:], mask[:, : TOKENS - tokens, : WIDTH - columns])


def test_four_corners_of_a_rectangle_are_unrelated() -> None:
    """Each is made from the same two tokens' and two channels' words, where a weak hash would show."""
    sign = 2 * of_samples(*range(16)) - 1
    corners = sign[:, ::2, ::2] * sign[:, 1::2, ::2] * sign[:, ::2, 1::2] * sign[:, 1::2, 1::2]
    assert abs(float(corners.mean())) < 5 / math.sqrt(corners.numel())


def test_any_two_channels_and_any_two_tokens_are_unrelated() -> None:
    centred = 2 * of_samples(*range(64)) - 1
    for flat in (centred.flatten(0, 1), centred.transpose(1, 2).flatten(0, 1)):
        gram = flat.T @ flat / math.sqrt(len(flat))
        found = gram[torch.ones_like(gram, dtype=torch.bool).triu(1)]
        assert float(found.abs().max()) < 6
        assert 0.97 < float(found.std()) < 1.03


def test_adjacent_samples_and_adjacent_seeds_are_unrelated() -> None:
    masks = of_samples(*range(16))
    assert_unrelated(masks[1:], masks[:-1])
    assert_unrelated(of_samples(*range(16), seed=1), masks)


def test_adjacent_keys_are_unrelated() -> None:
    keys = torch.arange(17)
    masks = kept(embedding_key(keys))
    assert_unrelated(masks[1:], masks[:-1])


@pytest.mark.parametrize("share", [0.1, 0.5])
def test_all_sites_of_a_sample_are_unrelated(share: float) -> None:
    rows = row_keys(0, [0])
    keys = torch.cat([embedding_key(rows), *(block_keys(rows, track, 2, 2).flatten(0, 3) for track in range(3))])
    masks = kept(keys, share)
    assert len({tuple(key) for key in keys.tolist()}) == len(masks) == 1 + 3 * 2 * 2 * 2
    for one, other in itertools.combinations(masks, 2):
        assert_unrelated(one, other, share)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs g++")
@pytest.mark.filterwarnings("ignore")  # torch's compiler warns of itself
@pytest.mark.parametrize("shape", [(2, 16, 64), (3, 7, 13)])
def test_a_compiler_makes_the_same_mask_in_one_graph_of_any_keys(shape: tuple[int, int, int]) -> None:
    torch.compiler.reset()
    compiled = torch.compile(drop, dynamic=False, fullgraph=True)
    x = torch.randn(shape)
    for first in range(0, 30, 3):
        key = embedding_key(row_keys(0, range(first, first + len(x))))
        with torch.compiler.set_stance("fail_on_recompile" if first else "default"):
            assert torch.equal(compiled(x, 0.3, key) == 0, drop(x, 0.3, key) == 0)
