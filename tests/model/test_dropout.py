"""Dropout: in training only, on the embedding and on each residual branch."""

import pytest
import torch
from small_models import random_tokens, small_config, small_model

from parallax.model.dual_track import DualTrack


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


def test_dropout_draws_anew_in_every_forward_and_repeats_under_the_same_seed() -> None:
    model, tokens = small_model(small_config(dropout=0.5)).train(), random_tokens(small_config())
    torch.manual_seed(0)
    first, second = model(tokens), model(tokens)
    torch.manual_seed(0)
    assert not torch.equal(first, second)
    assert torch.equal(model(tokens), first)


@pytest.mark.parametrize("share", [0.25, 0.6])
@torch.no_grad()
def test_the_embedding_loses_the_stated_share_and_keeps_its_mean(share: float) -> None:
    config = small_config(num_tracks=1, num_loops=1, num_layers=1, dropout=share, max_seq_len=2000)
    model = small_model(config).train()
    seen = []
    model.tracks["0"].register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    model.embedding.weight.fill_(1.0)
    model(torch.zeros(1, 1500, dtype=torch.long))
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
    context = small_model(config)._context(torch.zeros(1, 200, dtype=torch.long), torch.float64, None, None)
    hidden = torch.randn(1, 200, config.hidden_size, dtype=torch.float64)
    added = block(hidden, context) - hidden
    whole = block.eval()(hidden, context) - hidden
    dropped = added == 0
    assert dropped.double().mean().item() == pytest.approx(0.5, abs=0.05)
    torch.testing.assert_close(added[~dropped], 2 * whole[~dropped])
