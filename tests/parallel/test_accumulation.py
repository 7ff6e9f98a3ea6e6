"""Cutting a global batch into micro-batches changes nothing but rounding."""

import pytest
import torch
import torch.nn.functional as F
from small_engines import forward_backward, gradients, random_windows, shortened, small_engine, weights

from parallax.model.head import IGNORE_INDEX, Objective
from parallax.model.noise import row_keys

OBJECTIVES = [Objective(), Objective(label_smoothing=0.1, z_loss=0.01, chunk_tokens=5)]
LENGTHS = [6, 1, 4, 6, 2, 2, 5, 3]
"""Valid targets of eight rows: cut by two, four micro-batches have 7, 10, 4 and 8 of them."""


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("lengths", [[6] * 8, LENGTHS])
@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_four_micro_batches_do_what_one_batch_does(
    dropout: float, objective: Objective, lengths: list[int]
) -> None:
    windows = shortened(random_windows(8), lengths)
    whole, cut = small_engine(grad_clip=0.5, dropout=dropout), small_engine(grad_clip=0.5, dropout=dropout)
    sums = forward_backward(whole, windows, objective=objective)
    cut_sums = forward_backward(cut, *windows.split(2), objective=objective)
    assert cut_sums.tokens == sums.tokens == sum(lengths)
    torch.testing.assert_close(cut_sums[:4], sums[:4])
    assert gradients(whole).keys() == dict(whole.model.named_parameters()).keys()
    torch.testing.assert_close(gradients(cut), gradients(whole), rtol=1e-10, atol=1e-13)

    before = weights(whole)
    torch.testing.assert_close(cut.clip_and_step(0.3), whole.clip_and_step(0.3))
    torch.testing.assert_close(weights(cut), weights(whole), rtol=1e-10, atol=1e-13)
    assert all(not torch.equal(weights(whole)[name], before[name]) for name in before)


def test_the_gradient_is_that_of_the_mean_over_all_valid_tokens() -> None:
    windows = shortened(random_windows(8), LENGTHS)
    engine = small_engine()
    sums = forward_backward(engine, *windows.split(2))
    found = gradients(engine)

    logits = engine.model(windows[:, :-1].clamp(min=0))
    targets = windows[:, 1:]
    mean = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORE_INDEX)
    names, parameters = zip(*engine.model.named_parameters(), strict=True)
    expected = dict(zip(names, torch.autograd.grad(mean, parameters), strict=True))
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-13)
    torch.testing.assert_close(sums.objective / sums.tokens, mean.detach())
    torch.testing.assert_close(sums.nll, sums.objective)
    assert sums.correct == ((logits.argmax(-1) == targets) & (targets != IGNORE_INDEX)).sum()


def test_what_a_skipped_target_would_have_read_does_not_matter() -> None:
    engine = small_engine()
    windows = shortened(random_windows(2), [3, 6])
    forward_backward(engine, windows)
    found = gradients(engine)
    engine.optimizer.zero_grad()
    forward_backward(engine, windows[:1, :4], windows[1:])
    torch.testing.assert_close(gradients(engine), found, rtol=1e-10, atol=1e-13)


def test_an_update_clears_the_gradients_so_that_steps_do_not_mix() -> None:
    one, other = small_engine(), small_engine()
    for engine, first in ((one, 1), (other, 2)):
        forward_backward(engine, random_windows(4, seed=first))
        engine.clip_and_step(0.0)
        assert gradients(engine) == {}
        forward_backward(engine, random_windows(4, seed=3))
    torch.testing.assert_close(gradients(one), gradients(other), rtol=0, atol=0)


def test_dropout_draws_from_the_given_keys_and_from_nothing_else() -> None:
    windows = random_windows(4)
    engine = small_engine(dropout=0.5)

    def losses(first_samples: list[int], global_seed: int) -> list[torch.Tensor]:
        torch.manual_seed(global_seed)
        keys = [row_keys(0, range(first, first + 4)) for first in first_samples]
        return [engine.forward_backward([windows], Objective(), [noise]).objective for noise in keys]

    first, second, third = losses([7, 8, 7], global_seed=0)
    assert torch.equal(first, third)
    assert not torch.equal(first, second)
    assert torch.equal(losses([7], global_seed=1)[0], first)
