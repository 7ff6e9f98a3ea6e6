"""Derivatives against finite differences of the function itself."""

import pytest
import torch
from small_models import random_tokens, small_config, small_model
from torch import Tensor
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from parallax.model.head import IGNORE_INDEX, LanguageHead, Objective
from parallax.model.vocabulary import WholeVocabulary


@pytest.mark.parametrize(
    "objective",
    [
        Objective(chunk_tokens=4),
        Objective(label_smoothing=0.2, chunk_tokens=4),
        Objective(z_loss=0.05, chunk_tokens=4),
        Objective(label_smoothing=0.2, z_loss=0.05, chunk_tokens=100),
    ],
)
def test_the_fused_loss_has_the_derivatives_of_its_value(objective: Objective) -> None:
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(2, 3, 4, generator=generator, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(7, 4, generator=generator, dtype=torch.float64, requires_grad=True)
    targets = torch.tensor([[0, 6, IGNORE_INDEX], [3, 3, 1]])

    def loss(hidden: Tensor, weight: Tensor) -> Tensor:
        head = LanguageHead(4, WholeVocabulary(7))
        del head.weight
        head.weight = weight
        return head(hidden, targets, objective).objective_sum

    assert torch.autograd.gradcheck(loss, (hidden, weight), eps=1e-6, atol=1e-8, rtol=1e-7)


def test_a_second_derivative_of_the_fused_loss_is_refused() -> None:
    head = LanguageHead(4, WholeVocabulary(7)).double()
    torch.nn.init.normal_(head.weight)
    hidden = torch.ones(1, 2, 4, dtype=torch.float64, requires_grad=True)
    loss = head(hidden, torch.zeros(1, 2, dtype=torch.long), Objective()).objective_sum
    (first,) = torch.autograd.grad(loss * loss, hidden, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        first.sum().backward()


@pytest.mark.parametrize("num_loops", [1, 2, 3])
@pytest.mark.parametrize("use_swap", [True, False])
@pytest.mark.parametrize("tie_embeddings", [True, False])
def test_the_gradient_predicts_the_loss_along_random_directions(
    num_loops: int, use_swap: bool, tie_embeddings: bool
) -> None:
    config = small_config(num_tracks=3, num_loops=num_loops, use_swap=use_swap, tie_embeddings=tie_embeddings)
    model = small_model(config)
    tokens, targets = random_tokens(config), random_tokens(config, seed=2)
    objective = Objective(label_smoothing=0.1, z_loss=0.01, chunk_tokens=5)
    model(tokens, targets, objective=objective).objective_sum.backward()
    start = parameters_to_vector(model.parameters()).detach()
    gradient = parameters_to_vector([p.grad for p in model.parameters()])

    @torch.no_grad()
    def loss_at(weights: Tensor) -> Tensor:
        vector_to_parameters(weights, model.parameters())
        return model(tokens, targets, objective=objective).objective_sum

    for seed in range(3):
        direction = torch.randn(start.shape, generator=torch.Generator().manual_seed(seed), dtype=start.dtype)
        step = 1e-4 * direction / direction.norm()
        measured = (loss_at(start + step) - loss_at(start - step)) / 2
        torch.testing.assert_close(gradient @ step, measured, rtol=1e-6, atol=1e-12)
