"""Inputs of the decoding kernel, as its interpreted and its compiled trials take them."""

from typing import NamedTuple

import torch
from torch import Tensor


class Case(NamedTuple):
    """Two rows."""

    heads: int
    key_heads: int
    keys: int
    width: int
    splits: int
    dtype: torch.dtype = torch.float32
    lengths: tuple[int, int] | None = None
    key_mean: float = 0.0
    """Of the keys, in every component."""
    as_cached: bool = False
    """Keys and values (B, G, S, D) in memory, as the model's cache has them, q and r apart in one tensor."""


HALF = torch.float16
CASES = {
    "grouped": Case(8, 2, 200, 64, 1),
    "grouped, 3 splits": Case(8, 2, 200, 64, 3),
    "grouped, 5 splits": Case(8, 2, 200, 64, 5),
    "one key head, 3 splits": Case(4, 1, 150, 32, 3),
    "a head of its own, 3 splits": Case(3, 3, 150, 32, 3),
    "20 heads of a key head": Case(20, 1, 130, 16, 2),
    "40 heads of a key head, two tiles": Case(40, 1, 130, 16, 2),
    "one key": Case(8, 2, 1, 64, 1),
    "one key, 3 splits": Case(8, 2, 1, 64, 3),
    "ragged, D = 40": Case(8, 2, 77, 40, 1),
    "ragged, D = 40, 3 splits": Case(8, 2, 333, 40, 3),
    "as cached": Case(8, 2, 333, 40, 3, as_cached=True),
    "lengths": Case(8, 2, 333, 32, 3, lengths=(333, 130)),
    "lengths, one split": Case(8, 2, 333, 32, 1, lengths=(64, 1)),
    "a length past the keys": Case(8, 2, 70, 32, 3, lengths=(99, 65)),
    "filling the device": Case(8, 2, 333, 32, 0),
    "fp16": Case(8, 2, 333, 64, 1, HALF),
    "fp16, 5 splits": Case(8, 2, 333, 64, 5, HALF),
    "fp16, a mean of the keys of 16": Case(8, 2, 333, 64, 5, HALF, key_mean=16.0),
    "bf16, 3 splits": Case(8, 2, 200, 64, 3, torch.bfloat16),
}


def inputs(case: Case) -> list[Tensor]:
    """q, r (B, 1, H, D), k and v (B, S, G, D), in the case's type and layout."""
    generator = torch.Generator().manual_seed(0)
    asked, kept = (2, 2 * case.heads, 1, case.width), (2, case.key_heads, case.keys + 3, case.width)
    both, k, v = (torch.randn(s, generator=generator, dtype=torch.float64) for s in (asked, kept, kept))
    # What lies behind the last key must not matter.
    k[:, :, case.keys :], v[:, :, case.keys :] = float("nan"), float("nan")
    both[:, : case.heads] /= case.width**0.5
    r, q = both.to(case.dtype).transpose(1, 2).chunk(2, dim=2)
    keys, values = (
        (t + mean).to(case.dtype)[:, :, : case.keys].transpose(1, 2) for t, mean in ((k, case.key_mean), (v, 0.0))
    )
    tensors = [q, r, keys, values]
    return tensors if case.as_cached else [t.contiguous() for t in tensors]
