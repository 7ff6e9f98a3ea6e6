"""What the kernels are tried on: shapes, types and tiles, each small, for Triton's interpreter."""

from typing import NamedTuple

import torch
from torch import Tensor

from parallax.attention.plla.triton.tiles import Tile

LIMITS = {torch.float32: 2e-6, torch.float16: 2e-3, torch.bfloat16: 2e-2}
_TILE = Tile(32, 32, 4, 1)


class Case(NamedTuple):
    heads: int
    key_heads: int
    queries: int
    keys: int
    width: int
    window: int | None = None
    dtype: torch.dtype = torch.float32
    tile: Tile = _TILE
    key_mean: float = 0.0
    batch: int = 1
    strided: bool = False
    documents: bool = False
    quick: bool = False


# With windows of 34, and of 31 where 61 keys come before the queries, a tile at each end of a range is there for
# one query or one key.
CASES = {
    "plain": Case(2, 2, 100, 100, 64, batch=2),
    "plain in fp16": Case(1, 1, 100, 100, 64, dtype=torch.float16),
    "plain in bf16": Case(1, 1, 100, 100, 64, dtype=torch.bfloat16),
    "ragged, D = 40, grouped": Case(4, 2, 50, 50, 40, quick=True),
    "grouped in fp16": Case(4, 2, 45, 45, 32, dtype=torch.float16),
    "one key head, fewer queries": Case(3, 1, 37, 90, 16),
    "window": Case(2, 1, 130, 130, 32, window=34),
    "window of a tile": Case(1, 1, 96, 96, 16, window=32),
    "window of one": Case(2, 1, 40, 40, 16, window=1),
    "window, fewer queries": Case(2, 1, 40, 101, 16, window=31, quick=True),
    "more queries than keys in a tile": Case(2, 1, 80, 99, 32, tile=Tile(64, 16, 4, 1)),
    "more keys than queries in a tile": Case(2, 1, 80, 99, 32, window=50, tile=Tile(16, 64, 4, 1)),
    "wide": Case(1, 1, 40, 40, 256, tile=Tile(16, 16, 4, 1)),
    "wide in fp16": Case(1, 1, 40, 40, 256, dtype=torch.float16, tile=Tile(16, 32, 4, 1)),
    "one token": Case(2, 1, 1, 1, 8),
    "keys with a mean, in fp16": Case(1, 1, 70, 70, 64, dtype=torch.float16, key_mean=16.0, quick=True),
    "documents": Case(2, 1, 40, 70, 16, batch=2, documents=True, quick=True),
    "strided, in batches": Case(2, 1, 20, 40, 24, batch=2, strided=True, quick=True),
}


def inputs(case: Case) -> list[Tensor]:
    """g, q and r (B, H, T, D), k and v (B, G, S, D), of the case's type, with r large enough to matter.

    Strided ones stand as (B, T, D, H) in memory: no dimension is where a contiguous tensor has it.
    """
    generator = torch.Generator().manual_seed(0)
    asked = (case.batch, case.heads, case.queries, case.width)
    given = (case.batch, case.key_heads, case.keys, case.width)
    g, q, r, k, v = (torch.randn(shape, generator=generator) for shape in (asked, asked, asked, given, given))
    tensors = [t.to(case.dtype) for t in (g, q, r / case.width**0.5, k + case.key_mean, v)]
    if case.strided:
        return [t.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2) for t in tensors]
    return tensors


def document_mask(case: Case) -> Tensor:
    """(1, 1, T, S): keys of a query's document, 25 each, up to its own; one query looks ahead, one nowhere."""
    places = torch.arange(case.keys)
    own = places[case.keys - case.queries :, None]
    seen = (places // 25 == own // 25) & (places <= own)
    seen[2, 66] = True
    seen[33] = False
    return seen[None, None]
