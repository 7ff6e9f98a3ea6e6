"""Run with TRITON_INTERPRET=1: prints errors of the backend's calls against eager in float64, by case."""

import json

import torch
from torch import Tensor

from parallax.attention.plla.backends import EagerPlla
from parallax.attention.plla.triton_backend import TritonPlla, probe_error

SHAPES = {"whole": (40, 40), "fewer queries": (5, 40), "one query": (1, 40)}


def draw(queries: int, keys: int) -> list[Tensor]:
    """What a model gives: directions before queries (B, 2 H, T, D), keys and values (B, G, S, D)."""
    generator = torch.Generator().manual_seed(0)
    shapes = ((2, 8, queries, 16), (2, 2, keys, 16), (2, 2, keys, 16))
    return [torch.randn(shape, generator=generator) for shape in shapes]


def errors(queries: int, keys: int, mask: Tensor | None = None) -> list[float]:
    """Of the output and, where more than one query learns, of the gradients."""
    tensors = draw(queries, keys)
    found, expected = (
        [t.to(dtype, copy=True).requires_grad_(queries > 1) for t in tensors]
        for dtype in (torch.float32, torch.float64)
    )
    pairs = [(TritonPlla().attend(*found, mask), EagerPlla().attend(*expected, mask))]
    if queries > 1:
        pairs[0][0].square().sum().backward()
        pairs[0][1].square().sum().backward()
        pairs += [(a.grad, b.grad) for a, b in zip(found, expected, strict=True)]
    return [((a - b).abs().max() / b.abs().max()).item() for a, b in pairs]


if __name__ == "__main__":
    measured = {name: errors(*shape) for name, shape in SHAPES.items()}
    seen = torch.ones(2, 1, 40, 40, dtype=torch.bool).tril()
    seen[1, :, 20:, :20] = False
    measured["documents apart"] = errors(40, 40, seen)
    measured["trial"] = [probe_error(torch.device("cpu"))]
    print(json.dumps(measured))
