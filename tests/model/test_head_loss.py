"""The fused head against PyTorch's own cross-entropy on logits held in full."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from parallax.model.head import IGNORE_INDEX, HeadOutput, LanguageHead, Objective
from parallax.model.vocabulary import WholeVocabulary

EXACT = {"rtol": 1e-12, "atol": 1e-12}
D, V = 6, 13
SHAPE = (3, 7)


def make_head(scale: float = 1.0) -> LanguageHead:
    head = LanguageHead(D, WholeVocabulary(V)).double()
    torch.nn.init.normal_(head.weight, std=scale, generator=torch.Generator().manual_seed(0))
    return head


def make_inputs() -> tuple[Tensor, Tensor]:
    """States (3, 7, D) and targets (3, 7) of which five are ignored, a whole chunk of three among them."""
    generator = torch.Generator().manual_seed(1)
    hidden = torch.randn(*SHAPE, D, generator=generator, dtype=torch.float64, requires_grad=True)
    targets = torch.randint(V, SHAPE, generator=generator)
    targets[0, 3:6] = targets[2, 0] = targets[2, 6] = IGNORE_INDEX
    return hidden, targets


def plain_objective(hidden: Tensor, weight: Tensor, targets: Tensor, objective: Objective) -> Tensor:
    logits, flat = (hidden @ weight.T).flatten(0, 1), targets.flatten()
    loss = F.cross_entropy(
        logits, flat, reduction="sum", ignore_index=IGNORE_INDEX, label_smoothing=objective.label_smoothing
    )
    return loss + objective.z_loss * (logits.logsumexp(-1).square() * (flat != IGNORE_INDEX)).sum()


@pytest.mark.parametrize("chunk_tokens", [1, 2, 3, 8, 20, 21, 1000])
@pytest.mark.parametrize(("label_smoothing", "z_loss"), [(0.0, 0.0), (0.1, 0.0), (0.0, 0.01), (0.3, 0.02)])
def test_value_and_gradients_are_those_of_cross_entropy(
    chunk_tokens: int, label_smoothing: float, z_loss: float
) -> None:
    objective = Objective(label_smoothing=label_smoothing, z_loss=z_loss, chunk_tokens=chunk_tokens)
    head, (hidden, targets) = make_head(), make_inputs()
    plain = plain_objective(hidden, head.weight, targets, objective)
    output = head(hidden, targets, objective)
    torch.testing.assert_close(output.objective_sum, plain, **EXACT)

    # A loss that is divided and scaled, as training does, shows that the incoming gradient is used.
    expected = torch.autograd.grad(plain * 3 / 16, (hidden, head.weight))
    found = torch.autograd.grad(output.objective_sum * 3 / 16, (hidden, head.weight))
    torch.testing.assert_close(found, expected, **EXACT)


def test_the_sums_are_over_valid_tokens_and_without_smoothing_or_weight() -> None:
    head, (hidden, targets) = make_head(), make_inputs()
    output = head(hidden, targets, Objective(label_smoothing=0.3, z_loss=0.02, chunk_tokens=4))
    valid = targets != IGNORE_INDEX
    logits = hidden @ head.weight.T
    nll = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORE_INDEX, reduction="sum")
    torch.testing.assert_close(output.nll_sum, nll, **EXACT)
    torch.testing.assert_close(output.z_sum, logits.logsumexp(-1).square()[valid].sum(), **EXACT)
    assert output.token_count == valid.sum() == 16
    assert output.correct_count == (logits.argmax(-1) == targets)[valid].sum()
    assert all(not value.requires_grad for value in output[1:5])


def test_every_token_is_counted_as_correct_when_the_targets_are_the_largest_logits() -> None:
    head, (hidden, _) = make_head(), make_inputs()
    targets = (hidden @ head.weight.T).argmax(-1)
    assert head(hidden, targets, Objective(chunk_tokens=5)).correct_count == targets.numel()
    targets[1, :] = IGNORE_INDEX
    assert head(hidden, targets, Objective(chunk_tokens=5)).correct_count == 14


def test_the_loss_of_each_token_comes_when_asked_for() -> None:
    head, (hidden, targets) = make_head(), make_inputs()
    output = head(hidden, targets, Objective(label_smoothing=0.3, chunk_tokens=4), per_token=True)
    logits = hidden @ head.weight.T
    expected = F.cross_entropy(logits.mT, targets, ignore_index=IGNORE_INDEX, reduction="none")
    torch.testing.assert_close(output.token_nll, expected, **EXACT)
    assert head(hidden, targets, Objective()).token_nll is None


@pytest.mark.parametrize("objective", [Objective(), Objective(label_smoothing=0.1, z_loss=0.1, chunk_tokens=4)])
def test_without_a_valid_token_loss_and_gradients_are_zero(objective: Objective) -> None:
    head, (hidden, targets) = make_head(), make_inputs()
    output: HeadOutput = head(hidden, torch.full_like(targets, IGNORE_INDEX), objective, per_token=True)
    assert output.token_nll is not None
    assert all(value.count_nonzero() == 0 for value in output)
    output.objective_sum.backward()
    for tensor in (hidden, head.weight):
        assert tensor.grad is not None
        assert tensor.grad.count_nonzero() == 0


@pytest.mark.parametrize("frozen", ["hidden", "weight"])
def test_a_frozen_side_gets_no_gradient_and_leaves_the_other_right(frozen: str) -> None:
    head, (hidden, targets) = make_head(), make_inputs()
    both = torch.autograd.grad(head(hidden, targets, Objective()).objective_sum, (hidden, head.weight))
    (hidden if frozen == "hidden" else head.weight).requires_grad_(False)
    head(hidden, targets, Objective()).objective_sum.backward()
    fixed, free = (hidden, head.weight) if frozen == "hidden" else (head.weight, hidden)
    assert fixed.grad is None
    torch.testing.assert_close(free.grad, both[1 if frozen == "hidden" else 0], **EXACT)


def test_two_forwards_accumulate_their_gradients() -> None:
    head, (hidden, targets) = make_head(), make_inputs()
    head(hidden, targets, Objective()).objective_sum.backward()
    assert hidden.grad is not None
    assert head.weight.grad is not None
    once = hidden.grad.clone(), head.weight.grad.clone()
    head(hidden, targets, Objective()).objective_sum.backward()
    torch.testing.assert_close((hidden.grad, head.weight.grad), (2 * once[0], 2 * once[1]), **EXACT)


def test_logits_are_the_projection_in_at_least_single_precision() -> None:
    head, (hidden, _) = make_head(), make_inputs()
    torch.testing.assert_close(head.logits(hidden), hidden @ head.weight.T, **EXACT)
    half = head.to(torch.bfloat16).logits(hidden.to(torch.bfloat16))
    assert half.dtype == torch.float32
