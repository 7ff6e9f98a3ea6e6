"""PLLA of one new query a row over a cache, whose keys are read once for q, r and all heads of a key head."""

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor

from parallax.attention.plla.fused import fused

_LEAST_FUSED = 1 << 21
"""Numbers in the keys from which compiled sums pay; below, two products have less overhead."""
_PARTS = 16
"""Of the keys: what is summed over them is summed in parts, with as many sums under way at a time."""


def decode_row(q: Tensor, r: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float) -> Tensor:
    """(B, H, 1, D) for q and r of this shape and k and v (B, G, S, D); without gradients.

    `mask`, (B or 1, 1, 1, S) boolean, is true where the query may look.
    """
    # An operator costs a tenth of a millisecond, as long as a small cache is read: only compilers need one.
    needs_operator = torch.compiler.is_compiling() or isinstance(q, FakeTensor)
    row: Tensor = (_decode_row if needs_operator else _attend)(q, r, k, v, mask, scale)
    return row


@torch.library.custom_op("parallax::plla_decode", mutates_args=())
def _decode_row(q: Tensor, r: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float) -> Tensor:
    return _attend(q, r, k, v, mask, scale)


@_decode_row.register_fake
def _(q: Tensor, r: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float) -> Tensor:
    return q.new_empty(q.shape)


def _attend(q: Tensor, r: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float) -> Tensor:
    batch, groups, _, width = k.shape
    rows = torch.cat([t.reshape(batch, groups, -1, width) for t in (r, q)], dim=2)
    pays = k.numel() >= _LEAST_FUSED and k.shape[2] >= _PARTS
    attend = _fused_sums if pays else _by_products
    with torch.autocast(q.device.type, enabled=False):
        return attend(rows, k, v, mask, scale).to(q.dtype).view(q.shape)


def _by_products(rows: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float) -> Tensor:
    """(B, G, R, D) for rows (B, G, 2 R, D), the directions before the queries."""
    wide = torch.promote_types(k.dtype, torch.float32)
    # By rows of keys: a product with few columns runs at twice the rate of one with few rows.
    weights = _weights(k.to(wide) @ rows.to(wide).mT, mask, scale)
    return weights.mT @ v.to(wide)


def _by_sums(rows: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float) -> Tensor:
    """The same for a compiler, that reads keys and values in place and in their own type."""
    wide = torch.promote_types(k.dtype, torch.float32)
    weights = _weights((k[:, :, :, None].to(wide) * rows[:, :, None].to(wide)).sum(-1), mask, scale)
    each = k.shape[2] // _PARTS
    most, rest = slice(0, each * _PARTS), slice(each * _PARTS, None)
    parts = weights[:, :, most, :, None] * v[:, :, most, None].to(wide)
    left = weights[:, :, rest, :, None] * v[:, :, rest, None].to(wide)
    batch, groups = parts.shape[:2]
    return parts.view(batch, groups, _PARTS, each, *parts.shape[3:]).sum(3).sum(2) + left.sum(2)


_fused_sums = fused(_by_sums, otherwise=_by_products)


def _weights(products: Tensor, mask: Tensor | None, scale: float) -> Tensor:
    """W (B, G, S, R) of products (B, G, S, 2 R)."""
    u, scores = products.chunk(2, dim=-1)
    u, scores = u - u[:, :, -1:], scores * scale
    if mask is not None:
        scores = torch.where(mask.mT, scores, float("-inf"))
    p = scores.softmax(2)
    return p * (1 + (p * u).sum(2, keepdim=True) - u)
