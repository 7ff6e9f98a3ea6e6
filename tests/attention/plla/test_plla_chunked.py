"""The chunked path against the reference, in every type; under autograd, torch.compile and fake tensors."""

import sys

import pytest
import torch
from plla_cases import CASES, Case, inputs
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.library import opcheck

from parallax.attention.plla import chunked
from parallax.attention.plla.api import parallax_decode, parallax_func
from parallax.attention.plla.reference import parallax_reference

LIMITS = {torch.float32: 2e-6, torch.float16: 2e-3, torch.bfloat16: 2e-2}


def error(found: torch.Tensor, expected: torch.Tensor) -> float:
    """The largest difference over the largest value."""
    return ((found.double() - expected).abs().max() / expected.abs().max()).item()


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_output_and_every_gradient_are_the_references(case: Case) -> None:
    ours, theirs = ([t.requires_grad_() for t in inputs(case)] for _ in range(2))
    grad = torch.randn(2, case.heads, case.queries, case.width, dtype=torch.float64)
    found = parallax_func(*ours, window=case.window)
    expected = parallax_func(*theirs, window=case.window, backend="eager")
    found.backward(grad)
    expected.backward(grad)
    torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-12)
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine.grad, other.grad, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("backend", ["chunked", "eager"])
def test_gradients_are_the_slopes_of_the_output(backend: str) -> None:
    q, r, k, v = (t.requires_grad_() for t in inputs(Case(2, 1, 3, 4, 3, window=3)))
    assert torch.autograd.gradcheck(lambda *t: parallax_func(*t, window=3, backend=backend), (q, r, k, v))


@pytest.fixture(params=[True, False], ids=["bf16 products", "no bf16 products"])
def _cpu(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunked, "cpu_has_bf16", lambda: request.param)


@pytest.mark.usefixtures("_cpu")
@pytest.mark.parametrize("dtype", LIMITS)
@pytest.mark.parametrize("case", [CASES["plain"], CASES["grouped"], CASES["window"], CASES["wide"]])
def test_errors_of_each_type_are_within_its_limit(case: Case, dtype: torch.dtype) -> None:
    exact = inputs(case)
    found = parallax_func(*(t.to(dtype) for t in exact), window=case.window)
    assert found.dtype == dtype
    assert error(found, parallax_func(*exact, window=case.window, backend="eager")) <= LIMITS[dtype]


@pytest.mark.usefixtures("_cpu")
def test_gradients_in_bf16_are_in_bf16_and_within_its_limit() -> None:
    ours = [t.to(torch.bfloat16).requires_grad_() for t in inputs(CASES["grouped"])]
    theirs = [t.detach().double().requires_grad_() for t in ours]
    grad = torch.randn(2, 4, 37, 16, generator=torch.Generator().manual_seed(2)).to(torch.bfloat16)
    parallax_func(*ours).backward(grad)
    parallax_func(*theirs, backend="eager").backward(grad.double())
    for mine, other in zip(ours, theirs, strict=True):
        assert mine.grad is not None
        assert other.grad is not None
        assert mine.grad.dtype == torch.bfloat16
        assert error(mine.grad, other.grad) <= LIMITS[torch.bfloat16]


@pytest.mark.usefixtures("_cpu")
def test_a_common_mean_of_the_keys_does_no_harm_in_bf16() -> None:
    """Without centring, two large sums would cancel: an error of a tenth at a mean of 16."""
    case = Case(2, 2, 512, 512, 128)
    exact = [t.to(torch.bfloat16).double() for t in inputs(case, key_mean=16.0)]
    found = parallax_func(*(t.to(torch.bfloat16) for t in exact))
    assert error(found, parallax_func(*exact, backend="eager")) < 1e-2


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("heads", "key_heads", "keys"), [(2, 2, 1), (8, 2, 77), (4, 1, 300)])
def test_decoding_gives_the_last_row_of_the_reference(
    heads: int, key_heads: int, keys: int, dtype: torch.dtype
) -> None:
    q, r, k, v = (t.transpose(1, 2) for t in inputs(Case(heads, key_heads, 1, keys, 16)))
    found = parallax_decode(*(t.to(dtype) for t in (q, r, k, v)))
    limit = 1e-12 if dtype == torch.float64 else LIMITS[dtype]
    assert error(found, parallax_reference(q, r, k, v)) <= limit


def test_the_operators_are_what_they_say_to_compilers() -> None:
    q, r, k, v = (t.requires_grad_() for t in inputs(Case(4, 2, 9, 13, 8), torch.float32))
    opcheck(chunked._forward, (q, r, k, v, None, 0.3, 5))


def test_a_compiled_caller_gets_the_same_and_its_gradients() -> None:
    def loss(q: torch.Tensor, r: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        return (parallax_func(2 * q, r, k, v) ** 2).sum()

    plain, compiled = ([t.requires_grad_() for t in inputs(CASES["grouped"])] for _ in range(2))
    torch.compile(loss, fullgraph=True, backend="aot_eager")(*compiled).backward()
    loss(*plain).backward()
    for mine, other in zip(compiled, plain, strict=True):
        torch.testing.assert_close(mine.grad, other.grad, rtol=1e-10, atol=1e-11)


def test_shapes_are_known_without_computing() -> None:
    with FakeTensorMode():
        q = torch.empty(2, 4, 9, 8, dtype=torch.bfloat16)
        k = torch.empty(2, 2, 13, 8, dtype=torch.bfloat16)
        assert parallax_func(q, q, k, k).shape == q.shape


def test_memory_grows_with_the_length_and_not_with_its_square() -> None:
    def kept(length: int) -> int:
        sizes: list[int] = []
        tensors = [t.requires_grad_() for t in inputs(Case(1, 1, length, length, 8), torch.float32)]
        with torch.autograd.graph.saved_tensors_hooks(lambda t: (sizes.append(t.numel()), t)[1], lambda t: t):
            parallax_func(*tensors)
        return sum(sizes)

    assert kept(2048) <= 2.01 * kept(1024)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"r": (2, 2, 4, 8)}, r"q is \(2, 2, 3, 8\) and r \(2, 2, 4, 8\)"),
        ({"v": (2, 2, 5, 9)}, r"k is \(2, 2, 5, 8\) and v \(2, 2, 5, 9\)"),
        ({"k": (2, 3, 5, 8), "v": (2, 3, 5, 8)}, "3 key heads do not divide 2 query heads"),
        ({"k": (2, 2, 2, 8), "v": (2, 2, 2, 8)}, "3 queries and 2 keys"),
        ({"window": 0}, "window=0: a query sees its own key at least"),
    ],
)
def test_mistakes_are_named(change: dict, message: str) -> None:
    shapes = {"q": (2, 2, 3, 8), "r": (2, 2, 3, 8), "k": (2, 2, 5, 8), "v": (2, 2, 5, 8)}
    tensors = [torch.zeros(change.get(name, shape)) for name, shape in shapes.items()]
    options = {name: value for name, value in change.items() if name not in shapes}
    with pytest.raises(ValueError, match=message):
        parallax_func(*tensors, **options)


def test_a_window_beyond_all_keys_is_none() -> None:
    tensors = inputs(CASES["grouped"])
    for window in (2**31 - 1, 2**40, sys.maxsize):
        assert torch.equal(parallax_func(*tensors, window=window), parallax_func(*tensors))


@pytest.mark.parametrize(
    ("shape", "message"),
    [((1, 2, 2, 8), "one query a row"), ((2, 1, 4, 8), "batch and width"), ((1, 1, 3, 8), "do not divide")],
)
def test_decoding_names_what_it_does_not_take(shape: tuple[int, ...], message: str) -> None:
    q, k = torch.zeros(shape), torch.zeros(1, 5, 2, 8)
    with pytest.raises(ValueError, match=message):
        parallax_decode(q, q, k, k)


def test_a_nan_of_the_caller_is_not_hidden() -> None:
    q, r, k, v = inputs(CASES["grouped"])
    q[0, 0, 3, 0] = float("nan")
    for backend in ("eager", "chunked"):
        assert parallax_func(q, r, k, v, backend=backend)[0, 0, 3].isnan().all()
