"""Inputs of PLLA, and the shapes that every backend is tried on."""

from typing import NamedTuple

import torch
from torch import Tensor


class Case(NamedTuple):
    heads: int
    key_heads: int
    queries: int
    keys: int
    width: int
    window: int | None = None


CASES = {
    "plain": Case(2, 2, 150, 150, 16),
    "one token": Case(2, 2, 1, 1, 8),
    "ragged, D = 40": Case(2, 2, 100, 100, 40),
    "grouped": Case(4, 2, 37, 37, 16),
    "one key head": Case(3, 1, 37, 90, 16),
    "fewer queries": Case(2, 2, 5, 300, 8),
    "window": Case(2, 1, 300, 300, 8, window=33),
    "window, fewer queries": Case(2, 2, 40, 171, 8, window=7),
    "window of one": Case(2, 2, 20, 20, 8, window=1),
    "wide": Case(1, 1, 20, 20, 256),
}


def inputs(
    case: Case, dtype: torch.dtype = torch.float64, *, key_mean: float = 0.0, seed: int = 0
) -> list[Tensor]:
    """q and r (B, H, T, D), k and v (B, G, S, D), with r large enough to matter."""
    generator = torch.Generator().manual_seed(seed)
    asked, given = (2, case.heads, case.queries, case.width), (2, case.key_heads, case.keys, case.width)
    q, r, k, v = (
        torch.randn(shape, generator=generator, dtype=torch.float64) for shape in (asked, asked, given, given)
    )
    return [t.to(dtype) for t in (q, r / case.width**0.5, k + key_mean, v)]
