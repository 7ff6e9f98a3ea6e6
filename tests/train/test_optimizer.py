"""AdamW with decay on matrices only, against the rule written out in float64."""

import math

import pytest
import torch
from torch import Tensor, nn

from parallax.config.models.dual_track import DualTrackConfig
from parallax.config.sections import OptimConfig
from parallax.model.dual_track import DualTrack
from parallax.model.registry import build_model, materialize
from parallax.train.optimizer import build_optimizer


def small_model(*, tie_embeddings: bool = False) -> DualTrack:
    config = DualTrackConfig(
        num_layers=1, num_heads=2, hidden_size=8, vocab_size=11, max_seq_len=4, tie_embeddings=tie_embeddings
    )
    return materialize(build_model(config), "cpu", seed=0).double()


def names_by_decay(model: nn.Module, config: OptimConfig) -> dict[float, set[str]]:
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    groups = build_optimizer(model, config).param_groups
    return {group["weight_decay"]: {names[id(p)] for p in group["params"]} for group in groups}


@pytest.mark.parametrize("tie_embeddings", [False, True])
def test_norms_and_embeddings_are_not_decayed_and_everything_else_is(tie_embeddings: bool) -> None:
    model = small_model(tie_embeddings=tie_embeddings)
    found = names_by_decay(model, OptimConfig(weight_decay=0.1))
    everything = {name for name, _ in model.named_parameters()}
    plain = {name for name in everything if "norm" in name} | {"embedding.weight"}
    assert found == {0.1: everything - plain, 0.0: plain}
    assert len(plain) == 2 * 2 + 2
    assert ("head.weight" in found[0.1]) is not tie_embeddings


def test_frozen_parameters_get_no_state_and_an_empty_group_is_left_out() -> None:
    model = small_model()
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("norm" in name)
    found = names_by_decay(model, OptimConfig())
    assert list(found) == [0.0]
    assert all("norm" in name for name in found[0.0])


def test_a_few_steps_follow_the_rule_of_adamw() -> None:
    """w <- w - lr (d w + m / (1 - b1^t) / (sqrt(v / (1 - b2^t)) + e)); Loshchilov and Hutter, 2019."""
    config = OptimConfig(lr=0.02, weight_decay=0.3, betas=(0.8, 0.9), eps=1e-3)
    model = small_model()
    optimizer = build_optimizer(model, config)
    decay = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    weights = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    first: dict[str, Tensor | float] = dict.fromkeys(weights, 0.0)
    second: dict[str, Tensor | float] = dict.fromkeys(weights, 0.0)
    generator = torch.Generator().manual_seed(1)
    for step in range(1, 5):
        for name, parameter in model.named_parameters():
            g = parameter.grad = torch.randn(parameter.shape, dtype=torch.float64, generator=generator)
            first[name] = 0.8 * first[name] + 0.2 * g
            second[name] = 0.9 * second[name] + 0.1 * g**2
            m, v = first[name] / (1 - 0.8**step), second[name] / (1 - 0.9**step)
            shrunk = weights[name] * (1 - 0.02 * decay[id(parameter)])
            weights[name] = shrunk - 0.02 * m / (v.sqrt() + 1e-3)
        optimizer.step()
        torch.testing.assert_close(dict(model.named_parameters()), weights, rtol=1e-12, atol=1e-14)
    assert math.isclose(max(decay.values()), 0.3)
