"""Dropout: in training only, on the embedding and on each residual branch."""

import itertools
from dataclasses import replace

import pytest
import torch
from small_models import random_tokens, small_config, small_model
from torch import Tensor

from parallax.model.dual_track import DualTrack
from parallax.model.noise import block_keys, row_keys


def outputs_equal(one: DualTrack, other: DualTrack) -> bool:
    tokens = random_tokens(one.config)
    return torch.equal(one(tokens), other(tokens))


def test_without_dropout_training_computes_what_evaluation_does() -> None:
    config = small_config(dropout=0.0)
    before = torch.get_rng_state()
    assert outputs_equal(small_model(config).train(), small_model(config).eval())
    assert torch.equal(torch.get_rng_state(), before)


def test_dropout_is_silent_in_evaluation() -> None:
    assert outputs_equal(small_model(small_config(dropout=0.5)).eval(), small_model(small_config()).eval())


def test_a_rows_output_depends_on_its_own_key_and_on_no_random_state() -> None:
    model, tokens = small_model(small_config(dropout=0.5)).train(), random_tokens(small_config(), batch=3)
    torch.manual_seed(0)
    before = torch.get_rng_state()
    first = model(tokens, noise=row_keys(0, [0, 1, 2]))
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(1)
    second = model(tokens, noise=row_keys(0, [0, 7, 2]))
    torch.testing.assert_close(second[[0, 2]], first[[0, 2]], rtol=1e-12, atol=1e-12)
    assert not torch.allclose(second[1], first[1])


def test_a_row_alone_and_its_beginning_are_dropped_as_in_the_batch() -> None:
    model, tokens = small_model(small_config(dropout=0.5)).train(), random_tokens(small_config(), batch=3)
    together = model(tokens, noise=row_keys(0, [4, 5, 6]))
    alone = model(tokens[1:2, :4], noise=row_keys(0, [5]))
    torch.testing.assert_close(alone, together[1:2, :4], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    "noise", [None, torch.zeros(3, dtype=torch.long), torch.zeros(2), torch.zeros(2, 1, dtype=torch.long)]
)
def test_training_with_dropout_and_without_a_key_for_every_row_is_an_error(noise: Tensor | None) -> None:
    model, tokens = small_model(small_config(dropout=0.5)).train(), random_tokens(small_config())
    with pytest.raises(ValueError, match=r"dropout=0\.5 needs noise=\(2,\) int64 row keys, not "):
        model(tokens, noise=noise)


def test_a_block_that_trains_with_dropout_and_without_noise_is_an_error() -> None:
    model = small_model(small_config(dropout=0.5)).eval()
    model.tracks["1"].blocks[0].train()
    with pytest.raises(ValueError, match=r"dropout=0\.5 needs the context's noise"):
        model(random_tokens(model.config))


def test_every_branch_of_every_layer_pass_and_track_is_dropped_by_a_mask_of_its_own() -> None:
    config = small_config(num_tracks=3, num_loops=2, dropout=0.5)
    model = small_model(config).train()
    seen: list[Tensor] = []
    for track in model.tracks.values():
        for block in track.blocks:
            block.register_forward_pre_hook(lambda module, inputs: seen.extend(inputs[1].noise))
    model(random_tokens(config), noise=row_keys(0, [0, 1]))
    expected = [
        block_keys(row_keys(0, [0, 1]), track, 2, 2)[loop, layer, branch]
        for loop, track, layer, branch in itertools.product(range(2), range(3), range(2), range(2))
    ]
    assert torch.equal(torch.stack(seen), torch.stack(expected))
    assert len(torch.stack(seen).flatten(0, 1).unique(dim=0)) == 2 * 3 * 2 * 2 * 2


@pytest.mark.parametrize("share", [0.25, 0.6])
@torch.no_grad()
def test_the_embedding_loses_the_stated_share_and_keeps_its_mean(share: float) -> None:
    config = small_config(num_tracks=1, num_loops=1, num_layers=1, dropout=share, max_seq_len=2000)
    model = small_model(config).train()
    seen = []
    model.tracks["0"].register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    model.embedding.weight.fill_(1.0)
    model(torch.zeros(1, 1500, dtype=torch.long), noise=row_keys(0, [0]))
    kept = seen[0] != 0
    assert kept.double().mean().item() == pytest.approx(1 - share, abs=0.02)
    torch.testing.assert_close(seen[0][kept], torch.full_like(seen[0][kept], 1 / (1 - share)))


@pytest.mark.parametrize("branch", ["attention", "mlp"])
@torch.no_grad()
def test_each_residual_branch_is_dropped_on_its_own(branch: str) -> None:
    config = small_config(num_tracks=1, num_loops=1, num_layers=1, dropout=0.5)
    block = small_model(config).train().tracks["0"].blocks[0]
    for silent in {"attention", "mlp"} - {branch}:
        for weight in block.get_submodule(silent).parameters():
            weight.zero_()
    context = small_model(config)._context(torch.zeros(1, 200, dtype=torch.long), None, None)
    context = replace(context, noise=block_keys(row_keys(0, [0]), 0, 1, 1)[0, 0])
    hidden = torch.randn(1, 200, config.hidden_size, dtype=torch.float64)
    added = block(hidden, context) - hidden
    whole = block.eval()(hidden, context) - hidden
    dropped = added == 0
    assert dropped.double().mean().item() == pytest.approx(0.5, abs=0.05)
    torch.testing.assert_close(added[~dropped], 2 * whole[~dropped])
