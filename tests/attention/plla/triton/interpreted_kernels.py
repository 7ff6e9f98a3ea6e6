"""Run with TRITON_INTERPRET=1: prints errors of output and gradients against the reference in float64, by case."""

import json
import sys
from collections.abc import Callable

import torch
from kernel_cases import CASES, Case, document_mask, inputs
from torch import Tensor
from torch.library import opcheck

from parallax.attention.plla.reference import parallax_reference
from parallax.attention.plla.triton import operators
from parallax.attention.plla.triton.backward_keys import backward_keys_kernel
from parallax.attention.plla.triton.backward_queries import backward_queries_kernel
from parallax.attention.plla.triton.forward import forward_kernel
from parallax.attention.plla.triton.operators import triton_plla


def errors(case: Case) -> dict[str, float]:
    """The largest differences, each over the largest value of the reference."""
    g, *tensors = inputs(case)
    operators._tile = lambda kernel, q: case.tile
    mask = document_mask(case) if case.documents else None

    def expect(q: Tensor, r: Tensor, k: Tensor, v: Tensor) -> Tensor:
        q, r, k, v = (t.transpose(1, 2) for t in (q, r, k, v))
        return parallax_reference(q, r, k, v, case.width**-0.5, window=case.window, mask=mask).transpose(1, 2)

    found = _with_gradients(lambda *t: triton_plla(*t, case.width**-0.5, case.window, mask), g, tensors)
    expected = _with_gradients(expect, g.double(), [t.double() for t in tensors])
    names = ("output", "dq", "dr", "dk", "dv")
    return {name: _error(*pair) for name, *pair in zip(names, found, expected, strict=True)}


def _with_gradients(function: Callable[..., Tensor], g: Tensor, tensors: list[Tensor]) -> list[Tensor]:
    leaves = [t.detach().requires_grad_() for t in tensors]
    output = function(*leaves)
    return [output.detach(), *torch.autograd.grad(output, leaves, g)]


def _error(found: Tensor, expected: Tensor) -> float:
    difference = (found.double() - expected).abs().max().item()
    # One key alone: dq, dr and dk are zero.
    largest = expected.abs().max().item()
    return difference / largest if largest > 1e-12 else difference


def check_operators() -> None:
    """Schemas, fake kernels and autograd, with PyTorch's own check."""
    case = CASES["one token"]._replace(queries=9, keys=13)
    operators._tile = lambda kernel, q: case.tile
    _, *tensors = inputs(case)
    for mask in (None, torch.ones(1, 1, 9, 13, dtype=torch.bool).tril(4)):
        opcheck(operators._forward, (*(t.requires_grad_() for t in tensors), 0.3, 5, mask))


def main(names: list[str]) -> None:
    for kernel in (forward_kernel, backward_queries_kernel, backward_keys_kernel):
        assert type(kernel).__name__ == "InterpretedFunction", kernel
    for name in names:
        if name == "operators":
            check_operators()
        print(json.dumps([name, {} if name == "operators" else errors(CASES[name])]), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
