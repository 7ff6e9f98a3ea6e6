"""Weights are a pure function of (seed, name)."""

from collections.abc import Sequence

import pytest
import torch
from small_models import small_config
from torch import Tensor

from parallax.attention.softmax.eager import EagerSoftmax
from parallax.config.models.dual_track import DualTrackConfig
from parallax.model.dual_track import DualTrack
from parallax.model.exchange import LocalExchange
from parallax.model.registry import build_model, materialize


class OneTrackHere(LocalExchange):
    """The exchange of a rank that computes some of the tracks."""

    def __init__(self, num_tracks: int, local_tracks: Sequence[int]) -> None:
        super().__init__(num_tracks)
        self.local_tracks = local_tracks


def drawn(config: DualTrackConfig, seed: int = 0) -> dict[str, Tensor]:
    return materialize(build_model(config), "cpu", seed=seed).state_dict()


def assert_same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    for name, value in found.items():
        assert torch.equal(value, expected[name]), name


def test_the_same_seed_draws_the_same_weights_and_another_seed_others() -> None:
    config = small_config()
    first, again, other = drawn(config, seed=3), drawn(config, seed=3), drawn(config, seed=4)
    assert_same(first, again)
    assert all(not torch.equal(value, other[name]) for name, value in first.items() if value.dim() == 2)


def test_the_global_generator_is_neither_read_nor_moved() -> None:
    config = small_config()
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = drawn(config)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert_same(drawn(config), first)


def test_tracks_and_tying_do_not_change_what_other_parameters_draw() -> None:
    three = drawn(small_config(num_tracks=3))
    assert_same(drawn(small_config(num_tracks=1)), three)
    tied = drawn(small_config(num_tracks=3, tie_embeddings=True))
    assert torch.equal(tied.pop("head.weight"), tied["embedding.weight"])
    assert_same(tied, three)


@pytest.mark.parametrize("local_tracks", [[0], [1], [2, 1]])
def test_a_rank_with_some_of_the_tracks_draws_the_weights_of_the_whole_model(local_tracks: list[int]) -> None:
    config = small_config(num_tracks=3)
    with torch.device("meta"):
        part = DualTrack(config, EagerSoftmax(), OneTrackHere(3, local_tracks))
    here = materialize(part, "cpu", seed=0).state_dict()
    assert {name.split(".")[1] for name in here if name.startswith("tracks")} == set(map(str, local_tracks))
    assert_same(here, drawn(config))


def test_the_order_of_parameters_does_not_matter() -> None:
    config = small_config(num_tracks=2)
    model = build_model(config)
    model.tracks = torch.nn.ModuleDict({name: model.tracks[name] for name in ("1", "0")})
    assert_same(materialize(model, "cpu", seed=0).state_dict(), drawn(config))


def test_no_two_matrices_of_one_shape_are_alike() -> None:
    matrices = [value for value in drawn(small_config(num_tracks=3)).values() if value.dim() == 2]
    for i, one in enumerate(matrices):
        assert not any(one.shape == other.shape and torch.equal(one, other) for other in matrices[:i])


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_another_type_gets_the_same_draws_rounded(dtype: torch.dtype) -> None:
    config = small_config()
    narrow = materialize(build_model(config).to(dtype), "cpu", seed=0).state_dict()
    assert_same(narrow, {name: value.to(dtype) for name, value in drawn(config).items()})


@pytest.mark.parametrize(("num_layers", "num_loops"), [(1, 1), (3, 1), (2, 2)])
def test_spreads_are_those_of_the_table(num_layers: int, num_loops: int) -> None:
    config = DualTrackConfig(
        num_layers=num_layers, num_loops=num_loops, num_heads=2, hidden_size=128, vocab_size=300, max_seq_len=4
    )
    residual = 0.02 / (2 * num_layers * num_loops) ** 0.5
    for name, value in drawn(config).items():
        if value.dim() == 1:
            assert (value == 1).all(), name
            continue
        spread = residual if name.endswith(("attention.output.weight", "mlp.down.weight")) else 0.02
        assert value.std().item() == pytest.approx(spread, rel=0.03), name
        assert value.mean().abs() < 0.05 * spread, name


def test_an_untrained_model_is_as_surprised_as_one_that_knows_nothing() -> None:
    config = DualTrackConfig(num_layers=2, num_heads=2, hidden_size=64, vocab_size=200, max_seq_len=32)
    model = materialize(build_model(config), "cpu", seed=0)
    tokens = torch.randint(200, (4, 33), generator=torch.Generator().manual_seed(0))
    output = model(tokens[:, :-1], tokens[:, 1:])
    mean_loss = output.nll_sum / output.token_count
    assert mean_loss.item() == pytest.approx(torch.tensor(200.0).log().item(), abs=0.05)
