"""The package fla-core as a second oracle of PLLA, written by others: its plain definition, which needs no GPU."""

import importlib
import warnings
from collections.abc import Callable

import pytest
import torch
from plla_cases import CASES, inputs
from torch import Tensor

from parallax.attention.plla.api import parallax_func
from parallax.attention.plla.reference import parallax_reference

Oracle = Callable[..., Tensor]
"""q, r (B, T, H, D), k, v (B, T, G, D), as many queries as keys; scale of q.k only; a window with the own key."""


@pytest.fixture(scope="module")
def naive_parallax() -> Oracle:
    pytest.importorskip("triton")
    pytest.importorskip("fla")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # without a GPU it warns of that, and of parts of PyTorch that it touches
        return importlib.import_module("fla.ops.parallax").naive_parallax


def off(found: Tensor, expected: Tensor) -> float:
    """The largest difference over the largest value."""
    return ((found.double() - expected).abs().max() / expected.abs().max()).item()


@pytest.mark.parametrize("scale", [None, 0.7])
@pytest.mark.parametrize(
    "name", ["plain", "one token", "ragged, D = 40", "grouped", "window", "window of one", "wide"]
)
def test_output_and_gradients_are_those_of_the_package(
    naive_parallax: Oracle, name: str, scale: float | None
) -> None:
    """It computes in fp32 whatever it is given, ours here in float64, and the chunked path in fp32."""
    case = CASES[name]
    exact = [t.transpose(1, 2).contiguous().requires_grad_() for t in inputs(case)]
    theirs = [t.detach().float().requires_grad_() for t in exact]
    chunked = [t.detach().transpose(1, 2).requires_grad_() for t in theirs]
    outputs = [
        parallax_reference(*exact, scale, window=case.window),
        naive_parallax(*theirs, scale, case.window),
        parallax_func(*chunked, scale, window=case.window, backend="chunked"),
    ]
    grad = torch.randn(outputs[0].shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    outputs[0].backward(grad)
    outputs[1].backward(grad.float())
    outputs[2].backward(grad.transpose(1, 2).float())
    assert off(outputs[1], outputs[0].detach()) < 5e-6
    assert off(outputs[2].transpose(1, 2), outputs[0].detach()) < 2e-6
    # The direction of a row that sees one key has no effect, and rounding errors for a gradient.
    size = max(t.grad.abs().max() for t in exact)
    for mine, other, parts in zip(exact, theirs, chunked, strict=True):
        assert (other.grad - mine.grad).abs().max() < 5e-6 * size
        assert (parts.grad.transpose(1, 2) - mine.grad).abs().max() < 5e-6 * size
