"""Tiles of rows in memory, for kernels: rows and columns that are not there read as zero and are not written."""

import triton
import triton.language as tl


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
