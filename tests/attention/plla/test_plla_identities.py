"""PLLA's own identities, which no implementation is needed to know, for the reference and the chunked path."""

import pytest
import torch
from plla_cases import CASES, Case, inputs
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from parallax.attention.plla.api import parallax_func
from parallax.attention.plla.reference import visible

BACKENDS = ["eager", "chunked"]
EXACT = {"rtol": 1e-10, "atol": 1e-11}


def softmax_attention(q: Tensor, k: Tensor, v: Tensor, case: Case) -> Tensor:
    seen = visible(case.queries, case.keys, case.window, q.device)
    return scaled_dot_product_attention(q, k, v, attn_mask=seen, enable_gqa=case.heads != case.key_heads)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_it_is_the_mean_value_less_the_covariance_of_direction_and_value(case: Case, backend: str) -> None:
    """o = E[v] - cov_p(r.k, v), query by query, from its definition."""
    q, r, k, v = inputs(case)
    group, offset = case.heads // case.key_heads, case.keys - case.queries
    found = parallax_func(q, r, k, v, window=case.window, backend=backend)
    for head in range(case.heads):
        for place in {0, case.queries // 2, case.queries - 1}:
            first = 0 if case.window is None else max(0, place + offset - case.window + 1)
            keys, values = (t[1, head // group, first : place + offset + 1] for t in (k, v))
            p = (keys @ q[1, head, place] / case.width**0.5).softmax(0)
            u = keys @ r[1, head, place]
            mean = p @ values
            covariance = (p * (u - p @ u)) @ (values - mean)
            torch.testing.assert_close(found[1, head, place], mean - covariance, **EXACT)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_without_a_direction_it_is_softmax_attention(case: Case, backend: str) -> None:
    q, r, k, v = inputs(case)
    found = parallax_func(q, torch.zeros_like(r), k, v, window=case.window, backend=backend)
    torch.testing.assert_close(found, softmax_attention(q, k, v, case), **EXACT)


@pytest.mark.filterwarnings("ignore:.*torch.jit.script.*:DeprecationWarning")
@pytest.mark.parametrize("backend", BACKENDS)
def test_it_is_softmax_attention_less_its_derivative_along_the_direction(backend: str) -> None:
    """o = A(q) - J A(q) [r / scale], by forward differentiation of PyTorch's own attention."""
    case = CASES["plain"]
    q, r, k, v = inputs(case)
    with sdpa_kernel(SDPBackend.MATH):
        value, slope = torch.func.jvp(
            lambda asked: softmax_attention(asked, k, v, case), (q,), (r * case.width**0.5,)
        )
    torch.testing.assert_close(parallax_func(q, r, k, v, backend=backend), value - slope, **EXACT)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("case", [CASES["grouped"], CASES["window"]])
def test_a_vector_added_to_all_keys_changes_nothing_and_one_added_to_all_values_adds_itself(
    case: Case, backend: str
) -> None:
    q, r, k, v = inputs(case)
    plain = parallax_func(q, r, k, v, window=case.window, backend=backend)
    shift = torch.randn(case.width, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    shifted = parallax_func(q, r, k + 3 * shift, v + shift, window=case.window, backend=backend)
    torch.testing.assert_close(shifted, plain + shift, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("case", [CASES["grouped"], CASES["window"], CASES["fewer queries"]])
def test_the_gradients_of_all_keys_of_a_row_cancel(case: Case, backend: str) -> None:
    q, r, k, v = (t.requires_grad_() for t in inputs(case))
    output = parallax_func(q, r, k, v, window=case.window, backend=backend)
    (output * torch.randn(output.shape, dtype=torch.float64)).sum().backward()
    assert k.grad is not None
    assert k.grad.abs().max() > 0.01
    assert k.grad.sum(2).abs().max() < 1e-10


def test_a_scale_is_of_the_first_score_only() -> None:
    q, r, k, v = inputs(CASES["plain"])
    torch.testing.assert_close(
        parallax_func(q, r, k, v, 1.0), parallax_func(q * CASES["plain"].width ** 0.5, r, k, v), **EXACT
    )
