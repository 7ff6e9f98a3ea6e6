"""What the fused loss keeps of its gradients in narrow types."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from parallax.model.head import LanguageHead, Objective
from parallax.model.vocabulary import WholeVocabulary

LOSS_SCALE = 65536.0


def reference_gradients(hidden: Tensor, weight: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of the mean cross-entropy in float64."""
    hidden, weight = hidden.detach().double().requires_grad_(), weight.detach().double().requires_grad_()
    loss = F.cross_entropy((hidden @ weight.T).flatten(0, 1), targets.flatten())
    grads = torch.autograd.grad(loss, (hidden, weight))
    return grads[0], grads[1]


def scaled_gradients(
    head: LanguageHead, hidden: Tensor, targets: Tensor, dtype: torch.dtype, scale: float
) -> tuple[Tensor, Tensor]:
    """Gradients of the mean loss as training takes them: autocast, loss scale, backward, unscale."""
    with torch.autocast("cpu", dtype=dtype):
        output = head(hidden, targets, Objective(chunk_tokens=512))
    grads = torch.autograd.grad(scale * output.objective_sum / targets.numel(), (hidden, head.weight))
    assert all(grad.dtype == torch.float32 for grad in grads)
    return grads[0].double() / scale, grads[1].double() / scale


def relative_error(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


def test_fp16_keeps_the_gradients_of_a_large_vocabulary_over_many_tokens() -> None:
    vocab_size, width = 32_000, 8
    generator = torch.Generator().manual_seed(0)
    head = LanguageHead(width, WholeVocabulary(vocab_size))
    torch.nn.init.normal_(head.weight, std=0.02, generator=generator)
    # 2,048 tokens, but only 64 different ones: the mean, and so the reference, is that of 64.
    few, few_targets = (
        torch.rand(1, 64, width, generator=generator),
        torch.randint(1000, (1, 64), generator=generator),
    )
    hidden, targets = few.repeat(8, 4, 1).requires_grad_(), few_targets.repeat(8, 4)

    found = scaled_gradients(head, hidden, targets, torch.float16, LOSS_SCALE)
    expected = reference_gradients(few, head.weight, few_targets)
    assert relative_error(found[0], expected[0].repeat(8, 4, 1) / 32) < 1e-3
    assert relative_error(found[1], expected[1]) < 1e-3
    # Rows that are nobody's target have gradients of about 1/V alone; most of the vocabulary is such.
    unseen_found, unseen_expected = found[1][1000:], expected[1][1000:]
    assert unseen_expected.abs().max() < 2.0 / vocab_size
    assert ((unseen_found / unseen_expected - 1).abs() < 1e-3).all()


def test_fp16_keeps_the_gradient_of_a_token_less_likely_than_fp16_can_say() -> None:
    # Logits 20 and 0: the second token has probability 2e-9, which fp16 rounds to zero.
    head = LanguageHead(2, WholeVocabulary(2))
    with torch.no_grad():
        head.weight.copy_(torch.tensor([[20.0, 0.0], [0.0, 0.0]]))
    hidden = torch.tensor([[[1.0, 0.0]]], requires_grad=True)
    targets = torch.zeros(1, 1, dtype=torch.long)
    found = scaled_gradients(head, hidden, targets, torch.float16, LOSS_SCALE)
    expected = reference_gradients(hidden, head.weight, targets)
    assert 0 < expected[1][1, 0] < 2**-25
    torch.testing.assert_close(found[1][1], expected[1][1], rtol=1e-3, atol=0.0)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.bfloat16, 2e-2), (torch.float16, 2e-3)])
def test_under_autocast_loss_and_gradients_are_right_to_the_rounding_of_the_products(
    dtype: torch.dtype, tolerance: float
) -> None:
    generator = torch.Generator().manual_seed(0)
    head = LanguageHead(32, WholeVocabulary(500))
    torch.nn.init.normal_(head.weight, std=0.2, generator=generator)
    hidden = torch.randn(4, 32, 32, generator=generator).requires_grad_()
    targets = torch.randint(500, (4, 32), generator=generator)
    with torch.autocast("cpu", dtype=dtype):
        output = head(hidden, targets, Objective())
    assert output.objective_sum.dtype == torch.float32
    logits = (hidden.double() @ head.weight.double().T).flatten(0, 1)
    assert output.objective_sum.item() == pytest.approx(
        F.cross_entropy(logits, targets.flatten(), reduction="sum").item(), rel=tolerance / 10
    )
    found = scaled_gradients(head, hidden, targets, dtype, scale=1.0)
    for got, wanted in zip(found, reference_gradients(hidden, head.weight, targets), strict=True):
        assert relative_error(got, wanted) < tolerance


def test_a_model_held_in_bf16_gets_gradients_of_its_own_type() -> None:
    head = LanguageHead(8, WholeVocabulary(50)).to(torch.bfloat16)
    torch.nn.init.normal_(head.weight, std=0.5, generator=torch.Generator().manual_seed(0))
    hidden = torch.randn(1, 4, 8, generator=torch.Generator().manual_seed(1)).to(torch.bfloat16).requires_grad_()
    targets = torch.arange(4)[None]
    output = head(hidden, targets, Objective())
    assert output.objective_sum.dtype == torch.float32
    (output.objective_sum / 4).backward()
    for tensor, wanted in zip(
        (hidden, head.weight), reference_gradients(hidden, head.weight, targets), strict=True
    ):
        assert tensor.grad is not None
        assert tensor.grad.dtype == torch.bfloat16
        assert relative_error(tensor.grad.double(), wanted) < 2e-2


@pytest.mark.parametrize("size", [1e4, 1e5])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_enormous_logits_give_finite_losses_and_gradients(size: float, dtype: torch.dtype) -> None:
    head = LanguageHead(1, WholeVocabulary(3)).to(dtype)
    with torch.no_grad():
        head.weight.copy_(torch.tensor([[size], [0.0], [-size]]))
    hidden = torch.ones(1, 3, 1, dtype=dtype, requires_grad=True)
    output = head(hidden, torch.tensor([[0, 1, 2]]), Objective(label_smoothing=0.1, z_loss=1e-4), per_token=True)
    torch.testing.assert_close(output.token_nll, torch.tensor([[0.0, size, 2 * size]], dtype=dtype))
    output.objective_sum.backward()
    assert output.objective_sum.isfinite()
    for tensor in (hidden, head.weight):
        assert tensor.grad is not None
        assert tensor.grad.isfinite().all()
