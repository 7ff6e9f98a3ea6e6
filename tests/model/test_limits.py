"""Where two ways of describing a model coincide, they must compute the same numbers."""

import pytest
import torch
from small_models import random_tokens, small_config, small_model

from parallax.config.models.dual_track import DualTrackConfig
from parallax.model.dual_track import DualTrack

EXACT = {"rtol": 1e-12, "atol": 1e-12}


def with_weights_of(source: DualTrack, config: DualTrackConfig) -> DualTrack:
    """A model of another configuration with the same weights."""
    model = small_model(config)
    model.load_state_dict(source.state_dict())
    return model


@torch.no_grad()
def rename_tracks(model: DualTrack, new_names: list[int]) -> DualTrack:
    """The same model with track k's weights under the name new_names[k]."""
    state = model.state_dict()
    moved = {}
    for name, value in state.items():
        parts = name.split(".")
        if parts[0] == "tracks":
            parts[1] = str(new_names[int(parts[1])])
        moved[".".join(parts)] = value
    renamed = small_model(model.config)
    renamed.load_state_dict(moved)
    return renamed


@pytest.mark.parametrize("num_tracks", [1, 2, 3])
@pytest.mark.parametrize("changes", [{"use_swap": False}, {"reinject": True}, {"reinject": False}])
def test_with_one_pass_neither_the_swap_nor_the_reinjection_exists(num_tracks: int, changes: dict) -> None:
    config = small_config(num_tracks=num_tracks, num_loops=1)
    model, tokens = small_model(config), random_tokens(config)
    other = with_weights_of(model, config.model_copy(update=changes))
    assert torch.equal(other(tokens), model(tokens))


def test_one_track_in_one_pass_is_its_blocks_in_a_row() -> None:
    config = small_config(num_tracks=1, num_loops=1)
    model, tokens = small_model(config), random_tokens(config)
    hidden = model.embedding(tokens)
    context = model._context(tokens, None, None)
    for block in model.tracks["0"].blocks:
        hidden = block(hidden, context)
    torch.testing.assert_close(model(tokens), model.norm(hidden) @ model.head.weight.T, **EXACT)


@pytest.mark.parametrize("reinject", [True, False])
def test_a_single_track_swaps_with_itself(reinject: bool) -> None:
    config = small_config(num_tracks=1, num_loops=3, reinject=reinject, use_swap=True)
    model, tokens = small_model(config), random_tokens(config)
    without = with_weights_of(model, config.model_copy(update={"use_swap": False}))
    assert torch.equal(without(tokens), model(tokens))


@pytest.mark.parametrize("use_swap", [True, False])
def test_reinject_auto_follows_the_swap(use_swap: bool) -> None:
    config = small_config(use_swap=use_swap)
    model, tokens = small_model(config), random_tokens(config)
    stated = with_weights_of(model, config.model_copy(update={"reinject": use_swap}))
    opposite = with_weights_of(model, config.model_copy(update={"reinject": not use_swap}))
    assert torch.equal(stated(tokens), model(tokens))
    assert not torch.allclose(opposite(tokens), model(tokens))


def test_two_tracks_may_exchange_their_names() -> None:
    config = small_config(num_tracks=2, num_loops=3)
    model, tokens = small_model(config), random_tokens(config)
    torch.testing.assert_close(rename_tracks(model, [1, 0])(tokens), model(tokens), **EXACT)


def test_three_tracks_may_be_renamed_along_the_ring_but_not_against_it() -> None:
    config = small_config(num_tracks=3, num_loops=2)
    model, tokens = small_model(config), random_tokens(config)
    torch.testing.assert_close(rename_tracks(model, [1, 2, 0])(tokens), model(tokens), **EXACT)
    assert not torch.allclose(rename_tracks(model, [1, 0, 2])(tokens), model(tokens))


@torch.no_grad()
def test_between_equal_tracks_the_swap_changes_nothing() -> None:
    config = small_config(num_tracks=2, num_loops=2, reinject=True)
    model, tokens = small_model(config), random_tokens(config)
    model.tracks["1"].load_state_dict(model.tracks["0"].state_dict())
    without = with_weights_of(model, config.model_copy(update={"use_swap": False}))
    assert torch.equal(without(tokens), model(tokens))


def test_between_different_tracks_the_swap_changes_the_result() -> None:
    config = small_config(num_tracks=2, num_loops=2, reinject=True)
    model, tokens = small_model(config), random_tokens(config)
    without = with_weights_of(model, config.model_copy(update={"use_swap": False}))
    assert not torch.allclose(without(tokens), model(tokens))


@torch.no_grad()
def test_passes_without_swap_and_reinjection_are_deeper_stacks_of_the_same_blocks() -> None:
    config = small_config(num_tracks=1, num_layers=1, num_loops=3, use_swap=False)
    model, tokens = small_model(config), random_tokens(config)
    deep = small_model(small_config(num_tracks=1, num_layers=3, num_loops=1))
    for module in ("embedding", "norm", "head"):
        deep.get_submodule(module).load_state_dict(model.get_submodule(module).state_dict())
    for block in deep.tracks["0"].blocks:
        block.load_state_dict(model.tracks["0"].blocks[0].state_dict())
    torch.testing.assert_close(deep(tokens), model(tokens), **EXACT)


def test_a_token_does_not_see_the_tokens_after_it() -> None:
    config = small_config(num_loops=3)
    model, tokens = small_model(config), random_tokens(config, length=8)
    changed = tokens.clone()
    changed[:, 5:] = (changed[:, 5:] + 1) % config.vocab_size
    before, after = model(tokens), model(changed)
    assert torch.equal(before[:, :5], after[:, :5])
    assert not torch.isclose(before[:, 5:], after[:, 5:]).all(-1).any()


def test_rows_of_a_batch_do_not_see_each_other() -> None:
    config = small_config()
    model, tokens = small_model(config), random_tokens(config, batch=3)
    alone = torch.cat([model(row[None]) for row in tokens])
    torch.testing.assert_close(model(tokens), alone, **EXACT)


def test_the_logits_of_one_place_per_row_are_those_of_all_places() -> None:
    config = small_config()
    model, tokens = small_model(config), random_tokens(config, batch=3)
    last = torch.tensor([0, 5, 2])
    torch.testing.assert_close(model(tokens, last=last), model(tokens)[torch.arange(3), last], **EXACT)


def test_the_loss_is_that_of_the_logits() -> None:
    config = small_config()
    model, tokens = small_model(config), random_tokens(config)
    targets = random_tokens(config, seed=3)
    output = model(tokens, targets, per_token=True)
    expected = -model(tokens).log_softmax(-1).gather(-1, targets[..., None])[..., 0]
    torch.testing.assert_close(output.token_nll, expected, **EXACT)
    torch.testing.assert_close(output.objective_sum, expected.sum(), **EXACT)
    torch.testing.assert_close(output.nll_sum, expected.sum(), **EXACT)
