import math

import torch
import triton
from torch import Tensor

from parallax.attention.plla.shapes import check_decoding
from parallax.attention.plla.triton.decode import decode_kernel
from parallax.attention.plla.triton.decode_tiles import DecodeTile, decode_tile, num_splits
from parallax.attention.plla.triton.tiles import padded_width

_TYPES = {torch.float32, torch.float16, torch.bfloat16}
_INTERPRETED_AS = (8, 0), 1
"""Compute capability and multiprocessors where programs run one after another."""


def triton_decode(
    q: Tensor, r: Tensor, k: Tensor, v: Tensor, scale: float, lengths: Tensor | None = None, *, splits: int = 0
) -> Tensor:
    """PLLA of one new query a row, the keys split over programs; no gradient.

    Strides may be any, nothing is copied. Nothing is asked of the device: a CUDA graph may be replayed with other
    lengths. CPU tensors are for Triton's interpreter (TRITON_INTERPRET=1). The kernel has never run on a GPU.

    Args:
        q: (B, 1, H, D) queries.
        r: (B, 1, H, D) directions of the correction.
        k: (B, S, G, D) keys; the last of a row is the query's own.
        v: (B, S, G, D) values.
        scale: of q.k.
        lengths: (B,) int32 on the device, how many of the S keys a row has; None: all. A row of none gives zero.
        splits: programs a row; 0: as many as fill the device.

    Returns:
        (B, 1, H, D).

    Raises:
        ValueError: shapes or types that do not fit, heads wider than 256, or a GPU before 8.0.
    """
    _check(q, r, k, v, lengths)
    output: Tensor = _decode(q, r, k, v, scale, lengths, splits)
    return output


@torch.library.custom_op("parallax::plla_triton_decode", mutates_args=())
def _decode(
    q: Tensor, r: Tensor, k: Tensor, v: Tensor, scale: float, lengths: Tensor | None, splits: int
) -> Tensor:
    group = q.shape[2] // k.shape[2]
    capability, multiprocessors = _INTERPRETED_AS
    if q.is_cuda:
        capability = torch.cuda.get_device_capability(q.device)
        multiprocessors = torch.cuda.get_device_properties(q.device).multi_processor_count
    tile = decode_tile(group, q.shape[3], capability, q.element_size())
    if not splits:
        programs = q.shape[0] * k.shape[2] * triton.cdiv(group, tile.block_heads)
        splits = num_splits(programs, triton.cdiv(k.shape[1], tile.block_keys), multiprocessors)
    with torch.cuda.device_of(q):
        return launch_decode(q, r, k, v, scale, lengths, tile, splits)


@_decode.register_fake
def _(q: Tensor, r: Tensor, k: Tensor, v: Tensor, scale: float, lengths: Tensor | None, splits: int) -> Tensor:
    return q.new_empty(q.shape)


def launch_decode(
    q: Tensor, r: Tensor, k: Tensor, v: Tensor, scale: float, lengths: Tensor | None, tile: DecodeTile, splits: int
) -> Tensor:
    """Launches the kernel with a tile and a number of programs a row; see `triton_decode`."""
    batch, _, heads, width = q.shape
    group = heads // k.shape[2]
    blocks = k.shape[2] * triton.cdiv(group, tile.block_heads)
    output = q.new_empty(q.shape)
    sums = rows = arrived = None
    if splits > 1:
        sums = torch.empty(batch, heads, splits, 2, width, dtype=torch.float32, device=q.device)
        rows = torch.empty(3, batch, heads, splits, dtype=torch.float32, device=q.device)
        arrived = torch.zeros(batch, blocks, dtype=torch.int32, device=q.device)
    decode_kernel[(splits, blocks, batch)](
        q,
        r,
        k,
        v,
        output,
        lengths,
        sums,
        rows,
        arrived,
        scale * math.log2(math.e),
        *(q.stride(0), q.stride(2), q.stride(3), r.stride(0), r.stride(2), r.stride(3)),
        *k.stride(),
        *v.stride(),
        k.shape[1],
        splits,
        HEADS=heads,
        GROUP=group,
        WIDTH=width,
        BLOCK_HEADS=tile.block_heads,
        BLOCK_KEYS=tile.block_keys,
        BLOCK_WIDTH=padded_width(width),
        SPLIT=splits > 1,
        num_warps=tile.num_warps,
        num_stages=tile.num_stages,
    )
    return output


def _check(q: Tensor, r: Tensor, k: Tensor, v: Tensor, lengths: Tensor | None) -> None:
    check_decoding(q, r, k, v)
    types = {t.dtype for t in (q, r, k, v)}
    if len(types) > 1 or not types <= _TYPES:
        found = ", ".join(sorted(str(dtype).removeprefix("torch.") for dtype in types))
        raise ValueError(f"q, r, k, v are of {found}: the kernel takes one type, float32, float16 or bfloat16")
    if lengths is not None and (lengths.shape != q.shape[:1] or lengths.dtype != torch.int32):
        raise ValueError(
            f"lengths is {tuple(lengths.shape)}, {lengths.dtype}; expected ({q.shape[0]},), torch.int32"
        )
