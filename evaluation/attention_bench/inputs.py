from dataclasses import dataclass, replace
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from evaluation.attention_bench.shapes import Shape

Layout = Literal["heads", "positions"]
"""Order of the numbers in memory: (B, heads, positions, D), or (B, positions, heads, D)."""


@dataclass(frozen=True)
class Inputs:
    """Of one attention; every tensor is indexed (B, heads, positions, D), whatever its layout."""

    q: Tensor
    r: Tensor
    k: Tensor
    v: Tensor
    grad: Tensor
    """Of the loss by the output."""
    window: int | None
    mask: Tensor | None
    """The window as (T, S) boolean, true where a query may look; None without a window."""

    def of_key_head(self, row: int, head: int, dtype: torch.dtype) -> "Inputs":
        """What one head of keys of one row of the batch has to do with, in another type."""
        group = self.q.shape[1] // self.k.shape[1]
        queries, keys = slice(head * group, (head + 1) * group), slice(head, head + 1)

        def cut(tensor: Tensor, heads: slice) -> Tensor:
            return tensor.detach()[row : row + 1, heads].to(dtype)

        return replace(
            self,
            q=cut(self.q, queries),
            r=cut(self.r, queries),
            k=cut(self.k, keys),
            v=cut(self.v, keys),
            grad=cut(self.grad, queries),
        )


def make_inputs(shape: Shape, queries: int, dtype: torch.dtype, device: torch.device, layout: Layout) -> Inputs:
    """Seeded normal numbers; rows of q, r and k have a mean square of 1, as after a norm of queries and keys."""
    source = torch.Generator(device).manual_seed(0)

    def draw(heads: int, positions: int, normed: bool) -> Tensor:
        sizes = (heads, positions) if layout == "heads" else (positions, heads)
        numbers = torch.randn((shape.batch, *sizes, shape.width), generator=source, device=device, dtype=dtype)
        if normed:
            numbers = F.rms_norm(numbers, (shape.width,))
        return numbers if layout == "heads" else numbers.transpose(1, 2)

    return Inputs(
        q=draw(shape.heads, queries, True),
        r=draw(shape.heads, queries, True),
        k=draw(shape.key_heads, shape.length, True),
        v=draw(shape.key_heads, shape.length, False),
        grad=draw(shape.heads, queries, False),
        window=shape.window,
        mask=_window_mask(shape, queries, device),
    )


def input_numbers(shape: Shape, queries: int) -> int:
    """How many numbers are in an `Inputs`."""
    asked = 3 * shape.heads * queries
    return shape.batch * shape.width * (asked + 2 * shape.key_heads * shape.length)


def _window_mask(shape: Shape, queries: int, device: torch.device) -> Tensor | None:
    if shape.window is None:
        return None
    own = torch.arange(shape.length - queries, shape.length, device=device)[:, None]
    places = torch.arange(shape.length, device=device)
    return (places <= own) & (places > own - shape.window)
