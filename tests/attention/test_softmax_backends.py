"""Every softmax backend against the eager one, and the eager one against its definition."""

from math import exp, sqrt

import pytest
import torch
from torch import Tensor

from parallax.attention.select import OPERATORS
from parallax.attention.softmax.eager import EagerSoftmax, causal_mask

FAST = [backend for backend in OPERATORS["softmax"] if backend.name != "eager"]
SHAPES = [(5, 5), (1, 5), (1, 1), (3, 5)]
TOLERANCES = {torch.float64: 1e-12, torch.float32: 1e-5}


def make_inputs(
    num_queries: int, num_keys: int, *, heads: int = 4, kv_heads: int = 2, dtype: torch.dtype = torch.float64
) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)

    def draw(heads: int, length: int) -> Tensor:
        return torch.randn(2, heads, length, 6, generator=generator, dtype=dtype).requires_grad_()

    return draw(heads, num_queries), draw(kv_heads, num_keys), draw(kv_heads, num_keys)


def make_mask(num_queries: int, num_keys: int) -> Tensor:
    """(2, 1, T, S), a different one for each row of the batch; every query sees key 0."""
    mask = torch.rand(2, 1, num_queries, num_keys, generator=torch.Generator().manual_seed(1)) < 0.5
    mask[..., 0] = True
    return mask


@pytest.mark.parametrize(("num_queries", "num_keys"), SHAPES)
@pytest.mark.parametrize("masked", [False, True])
def test_eager_is_the_weighted_mean_of_the_values_a_query_may_see(
    num_queries: int, num_keys: int, masked: bool
) -> None:
    q, k, v = (t.detach() for t in make_inputs(num_queries, num_keys))
    mask = make_mask(num_queries, num_keys) if masked else None
    found = EagerSoftmax().attend(q, k, v, mask)
    for row in range(2):
        for head in range(4):
            for i in range(num_queries):
                if mask is None:
                    seen = list(range(num_keys - num_queries + i + 1))
                else:
                    seen = mask[row, 0, i].nonzero()[:, 0].tolist()
                group = head // 2
                shares = [exp(q[row, head, i].dot(k[row, group, j]).item() / sqrt(6)) for j in seen]
                mean = sum(share * v[row, group, j] for share, j in zip(shares, seen, strict=True)) / sum(shares)
                torch.testing.assert_close(found[row, head, i], mean, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("backend", FAST, ids=lambda backend: backend.name)
@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("kv_heads", [1, 2, 4])
@pytest.mark.parametrize(("num_queries", "num_keys"), SHAPES)
def test_a_backend_computes_what_eager_does_and_its_gradients(
    backend, dtype: torch.dtype, masked: bool, kv_heads: int, num_queries: int, num_keys: int
) -> None:
    inputs = make_inputs(num_queries, num_keys, kv_heads=kv_heads, dtype=dtype)
    mask = make_mask(num_queries, num_keys) if masked else None
    expected = EagerSoftmax().attend(*inputs, mask)
    found = backend.attend(*inputs, mask)
    close = {"rtol": TOLERANCES[dtype], "atol": TOLERANCES[dtype]}
    assert found.dtype == dtype
    torch.testing.assert_close(found, expected, **close)

    weights = torch.randn(expected.shape, generator=torch.Generator().manual_seed(2), dtype=dtype)
    gradients = [torch.autograd.grad((result * weights).sum(), inputs) for result in (found, expected)]
    torch.testing.assert_close(*gradients, **close)


@pytest.mark.parametrize("backend", OPERATORS["softmax"], ids=lambda backend: backend.name)
def test_new_queries_after_old_keys_see_what_they_saw_in_the_whole_sequence(backend) -> None:
    q, k, v = make_inputs(5, 5)
    whole = backend.attend(q, k, v, None)
    for new in (1, 2, 4):
        torch.testing.assert_close(backend.attend(q[:, :, -new:], k, v, None), whole[:, :, -new:])


@pytest.mark.parametrize("backend", OPERATORS["softmax"], ids=lambda backend: backend.name)
def test_a_mask_that_says_causal_equals_no_mask(backend) -> None:
    q, k, v = make_inputs(3, 5)
    mask = causal_mask(3, 5, torch.device("cpu"))[None, None].expand(2, 1, 3, 5)
    torch.testing.assert_close(backend.attend(q, k, v, mask), backend.attend(q, k, v, None))


def test_the_causal_mask_lines_up_with_the_last_key() -> None:
    assert causal_mask(2, 4, torch.device("cpu")).tolist() == [[True, True, True, False], [True] * 4]


@pytest.mark.parametrize(
    "backend", [b for b in OPERATORS["softmax"] if b.unavailable(torch.device("cpu")) is None]
)
def test_half_precision_stays_near_single(backend) -> None:
    inputs = make_inputs(5, 5, dtype=torch.float32)
    half = backend.attend(*(t.to(torch.bfloat16) for t in inputs), None)
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), EagerSoftmax().attend(*inputs, None), rtol=0.05, atol=0.05)
