from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

_QUERIES = 64
_SCORES = 1 << 20
"""Of q and of r, in one product: 4 MB in fp32."""


@dataclass(frozen=True)
class Chunk:
    """Some queries of some key heads, and the keys that any of them sees."""

    heads: slice
    """Of the N = B G key heads of all rows."""
    queries: slice
    keys: slice
    own: Tensor
    """(C,) the place of each query's own key among `keys`."""
    first: Tensor
    """(C,) the place of the first key that it sees."""
    mask: Tensor | None
    """(N or 1, 1, C, S') boolean, of these heads, queries and keys."""

    @property
    def rows(self) -> tuple[slice, slice, slice]:
        """Where (N, R, T, …) tensors of queries have these."""
        return self.heads, slice(None), self.queries

    @property
    def columns(self) -> tuple[slice, slice]:
        """Where (N, S, …) tensors of keys have these."""
        return self.heads, self.keys


def chunks_of(queries: Tensor, keys: Tensor, window: int, mask: Tensor | None) -> Iterator[Chunk]:
    """All queries of all heads, in parts whose scores a processor's caches hold.

    Args:
        queries: (N, R, T, D).
        keys: (N, S, D); the queries are the last T of the S positions.
        window: how many of the newest keys a query sees; 0: all up to its own.
        mask: (B or 1, 1, T, S) boolean instead; N is a multiple of B, and heads of one row stand together.
    """
    count, group, length, _ = queries.shape
    # 32 bits, as many as a score has: a compiler compares as many places at once as it computes scores.
    places = torch.arange(keys.shape[1], dtype=torch.int32, device=queries.device)
    own = places[keys.shape[1] - length :]
    begins = (own - (window - 1)).clamp_min(0) if window else torch.zeros_like(own)
    # Alike in length, so that the last is not a short one for which a compiler makes code of its own.
    parts = -(-length // _QUERIES)
    for number in range(parts):
        asked = slice(length * number // parts, length * (number + 1) // parts)
        part = None if mask is None else mask[:, :, asked]
        seen = _seen(asked, keys.shape[1] - length, window) if part is None else _marked(part)
        heads = max(1, _SCORES // (2 * group * (asked.stop - asked.start) * (seen.stop - seen.start)))
        centres = (own[asked] - seen.start).clamp(0, seen.stop - seen.start - 1)
        for head in range(0, count, heads):
            chosen = slice(head, min(head + heads, count))
            rows = None if part is None else _of_heads(part[..., seen], chosen, count)
            yield Chunk(chosen, asked, seen, centres, begins[asked] - seen.start, rows)


def _seen(asked: slice, offset: int, window: int) -> slice:
    """The keys up to the last query's own, from the first in the first query's window."""
    return slice(max(0, asked.start + offset - window + 1) if window else 0, asked.stop + offset)


def _marked(mask: Tensor) -> slice:
    """The keys from the first to the last that any query of (B, 1, C, S) sees."""
    if mask.device.type != "cpu":
        return slice(0, mask.shape[-1])  # asking a GPU would make it wait
    seen = mask.flatten(0, 2).any(0).nonzero()
    return slice(int(seen[0]), int(seen[-1]) + 1) if len(seen) else slice(0, 1)


def _of_heads(mask: Tensor, heads: slice, count: int) -> Tensor:
    """The rows of (B or 1, 1, C, S') that some of N = B G key heads belong to."""
    if len(mask) == 1:
        return mask
    return mask[torch.arange(heads.start, heads.stop, device=mask.device) // (count // len(mask))]
