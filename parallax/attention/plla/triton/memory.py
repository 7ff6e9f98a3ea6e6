"""Tiles of rows in memory, for kernels: rows and columns that are not there read as zero and are not written."""

import triton
import triton.language as tl
from torch import Tensor


@triton.jit
def load_rows(start_ptr, rows, num_rows, stride, stride_d, WIDTH: tl.constexpr, BLOCK_WIDTH: tl.constexpr):
    """The (len(rows), BLOCK_WIDTH) tile of an array (num_rows, WIDTH)."""
    columns = tl.arange(0, BLOCK_WIDTH)
    inside = (rows < num_rows)[:, None]
    if WIDTH != BLOCK_WIDTH:
        inside = inside & (columns < WIDTH)[None, :]
    places = rows.to(tl.int64)[:, None] * stride + columns[None, :] * stride_d
    return tl.load(start_ptr + places, inside, 0.0)


@triton.jit
def store_rows(start_ptr, tile, rows, num_rows, WIDTH: tl.constexpr, BLOCK_WIDTH: tl.constexpr):
    """Writes a tile to a contiguous array (num_rows, WIDTH), in its type."""
    columns = tl.arange(0, BLOCK_WIDTH)
    inside = (rows < num_rows)[:, None]
    if WIDTH != BLOCK_WIDTH:
        inside = inside & (columns < WIDTH)[None, :]
    places = rows.to(tl.int64)[:, None] * WIDTH + columns[None, :]
    tl.store(start_ptr + places, tile.to(start_ptr.dtype.element_ty), inside)


@triton.jit
def load_seen(start_ptr, rows, places, num_queries, num_keys, stride_t, stride_s):
    """What a mask (num_queries, num_keys) says of rows and places, which broadcast; false of what is not there."""
    inside = (rows < num_queries) & (places < num_keys)
    return tl.load(start_ptr + rows.to(tl.int64) * stride_t + places * stride_s, inside, 0) != 0


def mask_strides(mask: Tensor | None) -> tuple[int, int, int]:
    """Strides of a (B, 1, T, S) mask in its batch, queries and keys; zeros, which nobody reads, without one."""
    return (0, 0, 0) if mask is None else (mask.stride(0), mask.stride(2), mask.stride(3))
