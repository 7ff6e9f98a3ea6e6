"""Attention in chunks of queries, where it computes itself and where it hands over."""

import pytest
import torch
from torch import Tensor

from parallax.attention.softmax import chunked
from parallax.attention.softmax.chunked import ChunkedSoftmax, chunked_causal_attention
from parallax.attention.softmax.eager import EagerSoftmax


def make_inputs(length: int, kv_heads: int, width: int = 6, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    generator = torch.Generator().manual_seed(length)
    shapes = [(2, 4, length, width), (2, kv_heads, length, width), (2, kv_heads, length, width)]
    drawn = [torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype) for shape in shapes]
    return [tensor.requires_grad_() for tensor in drawn]


@pytest.mark.parametrize("kv_heads", [1, 2, 4])
@pytest.mark.parametrize("length", [1, 127, 128, 129, 300])
def test_values_and_gradients_are_those_of_the_eager_backend(length: int, kv_heads: int) -> None:
    inputs = make_inputs(length, kv_heads)
    ours, eager = chunked_causal_attention(*inputs), EagerSoftmax().attend(*inputs, mask=None)
    torch.testing.assert_close(ours, eager, rtol=0, atol=1e-13)
    weights = torch.randn(ours.shape, dtype=torch.float64)
    expected = torch.autograd.grad(eager, inputs, weights)
    for got, want in zip(torch.autograd.grad(ours, inputs, weights), expected, strict=True):
        torch.testing.assert_close(got, want, rtol=0, atol=1e-13)


def test_gradients_hold_by_finite_differences_over_several_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunked, "_CHUNK_QUERIES", 3)
    assert torch.autograd.gradcheck(chunked_causal_attention, make_inputs(7, 2, width=2))


@pytest.mark.parametrize("length", [200, 400])
def test_bf16_is_as_near_to_exact_as_the_eager_backend_in_bf16(length: int) -> None:
    exact_inputs = make_inputs(length, 2, width=32)
    inputs = [tensor.detach().bfloat16().requires_grad_() for tensor in exact_inputs]
    weights = torch.randn(2, 4, length, 32, dtype=torch.float64)
    exact = torch.autograd.grad(EagerSoftmax().attend(*exact_inputs, mask=None), exact_inputs, weights)

    def worst_error(output: Tensor) -> float:
        found = torch.autograd.grad(output, inputs, weights.bfloat16())
        return max(float((got - want).norm() / want.norm()) for got, want in zip(found, exact, strict=True))

    ours = worst_error(ChunkedSoftmax().attend(*inputs, mask=None))
    assert ours < 1.2 * worst_error(EagerSoftmax().attend(*inputs, mask=None))
    assert ours < 0.02


@pytest.mark.parametrize(
    ("length", "width", "dtype", "own"),
    [
        (64, 32, torch.bfloat16, True),
        (64, 64, torch.float32, True),
        (64, 32, torch.float32, False),
        (1, 64, torch.bfloat16, False),
        (1025, 8, torch.bfloat16, False),
    ],
)
def test_it_computes_itself_where_that_pays(
    length: int, width: int, dtype: torch.dtype, own: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    original = chunked_causal_attention
    monkeypatch.setattr(chunked, "chunked_causal_attention", lambda *a: calls.append(1) or original(*a))
    inputs = make_inputs(length, 4, width, dtype)
    output = ChunkedSoftmax().attend(*inputs, mask=None)
    assert bool(calls) == own
    exact = EagerSoftmax().attend(*(t.double() for t in inputs), mask=None)
    torch.testing.assert_close(output.double(), exact, rtol=0, atol=0.03 if dtype == torch.bfloat16 else 1e-5)


def test_a_mask_or_earlier_keys_go_to_the_fused_kernel() -> None:
    q, k, v = make_inputs(8, 4, 64, torch.float32)
    mask = torch.ones(8, 8, dtype=torch.bool).tril()[None, None]
    backend, eager = ChunkedSoftmax(), EagerSoftmax()
    torch.testing.assert_close(backend.attend(q, k, v, mask), eager.attend(q, k, v, mask))
    torch.testing.assert_close(backend.attend(q[:, :, 5:], k, v, None), eager.attend(q[:, :, 5:], k, v, None))
