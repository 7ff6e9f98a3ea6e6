"""PLLA as the attention of every architecture: it begins as softmax attention, and all its paths agree."""

from typing import Any

import pytest
import torch
from small_models import fill_generously, random_tokens
from zoo_models import SIZES

from parallax.config.load import check_model_config
from parallax.config.models.base import ModelConfig
from parallax.metrics.flops import parameter_counts
from parallax.model.decoder import Decoder
from parallax.model.registry import ARCHITECTURES, build_model, materialize

EXACT = {"rtol": 1e-9, "atol": 1e-10}


def config_of(architecture: str, attention: str = "plla") -> ModelConfig:
    own: dict[str, Any] = {"num_kv_heads": 1} if architecture == "dual_track" else {}
    return check_model_config(SIZES | own | {"architecture": architecture, "attention": attention}, "test")


def model_of(config: ModelConfig, backend: str = "auto", *, directed: bool = True) -> Decoder:
    """A float64 model with every parameter drawn large, or with directions of 0."""
    model = materialize(build_model(config, attention_backend=backend).double(), "cpu", seed=0)
    fill_generously(model, 0)
    if not directed:
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if name.endswith("directions.weight"):
                    parameter.zero_()
    return model.eval()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_it_begins_as_softmax_attention_and_learns_from_the_first_step(architecture: str) -> None:
    config, plain = config_of(architecture), config_of(architecture, "softmax")
    tokens = random_tokens(config)
    model, softmax = (materialize(build_model(c).double(), "cpu", seed=0).eval() for c in (config, plain))
    torch.testing.assert_close(model(tokens), softmax(tokens), **EXACT)
    assert parameter_counts(config).total == sum(p.numel() for p in model.parameters())
    model(tokens, tokens.roll(-1, 1)).objective_sum.backward()
    for name, parameter in model.named_parameters():
        if name.endswith("directions.weight"):
            assert parameter.grad is not None
            assert parameter.grad.abs().max() > 0, name


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_chunks_and_the_definition_agree_in_loss_and_gradients(architecture: str) -> None:
    config = config_of(architecture)
    tokens = random_tokens(config)
    ours, theirs = model_of(config, "chunked"), model_of(config, "eager")
    assert (ours(tokens) - model_of(config, directed=False)(tokens)).abs().max() > 1e-3, "directions matter"
    losses = [model(tokens, tokens.roll(-1, 1)).objective_sum for model in (ours, theirs)]
    torch.testing.assert_close(*losses, **EXACT)
    for loss in losses:
        loss.backward()
    for (name, mine), other in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        if mine.grad is not None:
            torch.testing.assert_close(mine.grad, other.grad, **EXACT, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_cache_gives_the_logits_of_a_whole_reading(architecture: str) -> None:
    config = config_of(architecture)
    model, tokens = model_of(config), random_tokens(config, length=8)
    cache = model.build_cache(2)
    pieces = [model(tokens[:, part], cache=cache) for part in (slice(0, 5), slice(5, 6), slice(6, 8))]
    torch.testing.assert_close(torch.cat(pieces, dim=1), model(tokens), **EXACT)


@pytest.mark.parametrize("architecture", ["dual_track", "gpt2"])
def test_rows_of_unequal_length_share_a_cache(architecture: str) -> None:
    config = config_of(architecture)
    model, tokens = model_of(config), random_tokens(config, length=7)
    cache = model.build_cache(2)
    model(tokens[:, :6], cache=cache)
    cache.truncate([6, 3])
    found = model(torch.stack((tokens[0, 6], tokens[1, 3]))[:, None], cache=cache)[:, 0]
    expected = torch.stack((model(tokens[:1])[0, 6], model(tokens[1:, :4])[0, 3]))
    torch.testing.assert_close(found, expected, **EXACT)


@pytest.mark.parametrize("architecture", ["dual_track", "gpt2_rotating_head"])
def test_documents_of_a_row_do_not_see_each_other(architecture: str) -> None:
    config = config_of(architecture)
    model, tokens = model_of(config), random_tokens(config, length=6)
    apart = model(tokens, tokens, documents=torch.tensor([[0, 0, 0, 0, 1, 1]] * 2), per_token=True).token_nll
    first = model(tokens[:, :4], tokens[:, :4], per_token=True).token_nll
    torch.testing.assert_close(apart[:, :4], first, **EXACT)
