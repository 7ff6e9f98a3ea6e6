"""Where variants of GPT-2 must coincide with it, with each other, or with ordinary rotary positions."""

import pytest
import torch
from small_models import random_tokens
from torch import Tensor
from zoo_models import SIZES, zoo_config, zoo_model

from parallax.config.load import check_model_config
from parallax.errors import ConfigError
from parallax.model.decoder import Decoder
from parallax.model.noise import block_keys, row_keys
from parallax.model.rotary import rotary_angles
from parallax.model.rotation import HeadFrequencies

EXACT = {"rtol": 1e-12, "atol": 1e-12}


def with_weights_of(model: Decoder, source: dict[str, Tensor]) -> Decoder:
    model.load_state_dict(model.state_dict() | source)
    return model


def losses_and_gradients(model: Decoder, tokens: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    rows = row_keys(0, range(len(tokens)))
    loss = model.train()(tokens, tokens.roll(-1, 1), noise=rows).objective_sum
    loss.backward()
    return loss.detach(), {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("per_head", [True, False])
def test_without_drift_and_diffusion_it_is_gpt2(per_head: bool) -> None:
    plain = zoo_model(zoo_config("gpt2"))
    config = zoo_config("drift, diffusion", diffusion_std=0.0, per_head=per_head)
    still = with_weights_of(zoo_model(config), plain.state_dict())
    with torch.no_grad():
        for layer in range(config.num_layers):
            still.get_parameter(f"tracks.0.blocks.{layer}.attention.perturbation.drift").zero_()
    tokens = random_tokens(config)
    expected, gradients = losses_and_gradients(plain, tokens)
    found, others = losses_and_gradients(still, tokens)
    torch.testing.assert_close(found, expected, **EXACT)
    for name, gradient in gradients.items():
        torch.testing.assert_close(others[name], gradient, **EXACT)


def test_equal_deviations_and_one_drift_are_the_merged_form() -> None:
    merged = zoo_model(zoo_config("merged drift, diffusion")).train()
    heads = zoo_config("drift, diffusion", diffusion_std=[0.1, 0.1])
    state = {
        name: value.expand(heads.num_heads, 1, 1) if name.endswith(".drift") else value
        for name, value in merged.state_dict().items()
    }
    each = with_weights_of(zoo_model(heads), state).train()
    tokens, rows = random_tokens(heads), row_keys(5, range(2))
    torch.testing.assert_close(each(tokens, noise=rows), merged(tokens, noise=rows), **EXACT)


def test_concatenation_by_halves_of_the_identity_is_the_mean() -> None:
    mean = zoo_model(zoo_config("mean"))
    config = zoo_config("concat")
    half = torch.eye(config.hidden_size).double() / 2
    state = mean.state_dict()
    for pair in range(config.layers_per_track):
        state[f"biases.{pair}"] = torch.zeros(config.hidden_size).double()
        state |= {f"tracks.{k}.merges.{pair}.weight": half for k in range(2)}
    concat = with_weights_of(zoo_model(config), state)
    tokens = random_tokens(config)
    expected, gradients = losses_and_gradients(mean, tokens)
    found, others = losses_and_gradients(concat, tokens)
    torch.testing.assert_close(found, expected, **EXACT)
    for name, gradient in gradients.items():
        torch.testing.assert_close(others[name], gradient, rtol=1e-11, atol=1e-12)


def test_pairs_of_equal_blocks_are_gpt2_of_half_the_layers() -> None:
    plain = zoo_model(zoo_config("gpt2"))
    twins = {name.replace("tracks.0.", "tracks.1."): value for name, value in plain.state_dict().items()}
    paired = with_weights_of(zoo_model(zoo_config("mean")), plain.state_dict() | twins)
    tokens = random_tokens(plain.config)
    torch.testing.assert_close(paired(tokens), plain(tokens), **EXACT)


@pytest.mark.parametrize("name", ["mean", "concat"])
def test_an_odd_number_of_layers_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=r"num_layers=3 is odd.*even, such as 4"):
        zoo_config(name, num_layers=3)


def test_fixed_frequencies_with_equal_scales_are_ordinary_rotary() -> None:
    config = zoo_config("GP", frequency_spread=0.0, hidden_size=16)
    positions = torch.arange(6)[None]
    for own, ordinary in zip(
        HeadFrequencies(config)(positions, torch.float64),
        rotary_angles(positions, config.head_dim, config.rope_theta, torch.float64),
        strict=True,
    ):
        torch.testing.assert_close(own, ordinary.expand_as(own), **EXACT)


def test_learned_frequencies_at_the_fixed_ones_are_the_fixed_ones() -> None:
    fixed = zoo_model(zoo_config("GP"))
    config = zoo_config("LR")
    powers = 50.0 ** (-2 * torch.arange(config.head_dim // 2).double() / config.head_dim)
    frequencies = torch.linspace(0, 1, config.num_heads).double().exp()[:, None] * powers
    state = fixed.state_dict()
    for layer in range(config.num_layers):
        state[f"tracks.0.blocks.{layer}.attention.rotation.frequencies"] = frequencies
    learned = with_weights_of(zoo_model(config), state)
    tokens = random_tokens(config)
    torch.testing.assert_close(learned(tokens), fixed(tokens), rtol=1e-9, atol=1e-9)


def test_noise_has_the_deviation_asked_for_and_is_the_samples_own() -> None:
    config = zoo_config("diffusion", diffusion_std=[0.3, 0.0], hidden_size=64, max_seq_len=512)
    model = zoo_model(config).train()
    perturbation = model.get_submodule("tracks.0.blocks.0.attention.perturbation")
    still = torch.zeros(3, 2, 512, 32).double()
    keys = block_keys(row_keys(0, [7, 8, 7]), 0, 1, 1)[0, 0, 0]
    noisy = perturbation(still, torch.arange(512)[None], keys)
    assert noisy[:, 0].std().item() == pytest.approx(0.3, rel=0.02)
    assert noisy[:, 0].mean().item() == pytest.approx(0.0, abs=0.006)
    assert not noisy[:, 1].any()
    assert torch.equal(noisy[0], noisy[2])
    assert not torch.equal(noisy[0], noisy[1])
    later = perturbation(still[:, :, 100:], torch.arange(100, 512)[None], keys)
    assert torch.equal(later, noisy[:, :, 100:])


def test_noise_in_evaluation_is_there_where_asked_for_and_the_same_every_time() -> None:
    config = zoo_config("diffusion", diffusion_at_eval=True)
    model = zoo_model(config).eval()
    tokens = random_tokens(config)
    first = model(tokens)
    assert torch.equal(first, model(tokens))
    quiet = with_weights_of(zoo_model(zoo_config("diffusion")), model.state_dict()).eval()
    assert (first - quiet(tokens)).abs().max() > 1e-3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"diffusion_std": [0.1]}, "diffusion_std has 1 deviations; expected one, or one for each of num_heads=2"),
        ({"diffusion_std": [0.1, 0.2], "per_head": False}, r"diffusion_std=\[0.1, 0.2\] has one deviation a head"),
        ({"diffusion_std": -0.1}, "diffusion_std"),
        ({"merge": "mean"}, "unknown key 'model.merge'"),
    ],
)
def test_mistakes_are_told_in_a_line(changes: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check_model_config(SIZES | {"architecture": "gpt2_drift_diffusion"} | changes, "test")
