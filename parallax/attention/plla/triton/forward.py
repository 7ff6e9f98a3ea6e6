"""Forward of PLLA, online: a program takes a tile of queries over the keys that they see, and keeps, per query,

    peak = max s,   total = sum w,   moment = sum w u,   sum w v,   sum w u v,   w = exp2(s - peak),

with s = log2(e) scale q.k and u = r.(k - k_own): not centred, the two sums would cancel where keys share a mean.
"""

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from parallax.attention.plla.triton.dot import dot
from parallax.attention.plla.triton.memory import load_rows, load_seen, mask_strides, store_rows
from parallax.attention.plla.triton.tiles import Tile, padded_width


@triton.jit
def forward_kernel(
    q_ptr,
    r_ptr,
    k_ptr,
    v_ptr,
    mask_ptr,
    out_ptr,
    mean_ptr,
    lse_ptr,
    c_ptr,
    scale,
    q_stride_b,
    q_stride_h,
    q_stride_t,
    q_stride_d,
    r_stride_b,
    r_stride_h,
    r_stride_t,
    r_stride_d,
    k_stride_b,
    k_stride_g,
    k_stride_s,
    k_stride_d,
    v_stride_b,
    v_stride_g,
    v_stride_s,
    v_stride_d,
    mask_stride_b,
    mask_stride_t,
    mask_stride_s,
    num_queries,
    num_keys,
    window,
    HEADS: tl.constexpr,
    GROUP: tl.constexpr,
    WIDTH: tl.constexpr,
    BLOCK_WIDTH: tl.constexpr,
    BLOCK_QUERIES: tl.constexpr,
    BLOCK_KEYS: tl.constexpr,
):
    """Grid (blocks of queries, H, B). scale is of q.k, times log2(e); window is num_keys where there is none.
    mask, or None, (B, T, S): what a query sees, instead of what causality and the window let it see.

    out and mean, which is E_p[v], (B, H, T, D); lse, base 2, and c = E_p[r.k], not centred, (B, H, T) fp32. All
    contiguous. A query that sees no key: zero, and lse = inf, so that its p are 0.
    """
    # The last queries see most keys: first, so that no long program starts when the others end.
    block = tl.num_programs(0) - 1 - tl.program_id(0)
    head, batch = tl.program_id(1).to(tl.int64), tl.program_id(2).to(tl.int64)
    k_ptr += batch * k_stride_b + head // GROUP * k_stride_g
    v_ptr += batch * v_stride_b + head // GROUP * v_stride_g
    start = block * BLOCK_QUERIES
    rows = start + tl.arange(0, BLOCK_QUERIES)
    offset = num_keys - num_queries
    own = rows + offset
    q_ptr += batch * q_stride_b + head * q_stride_h
    r_ptr += batch * r_stride_b + head * r_stride_h
    q = load_rows(q_ptr, rows, num_queries, q_stride_t, q_stride_d, WIDTH, BLOCK_WIDTH)
    r = load_rows(r_ptr, rows, num_queries, r_stride_t, r_stride_d, WIDTH, BLOCK_WIDTH)
    own_keys = load_rows(k_ptr, own, num_keys, k_stride_s, k_stride_d, WIDTH, BLOCK_WIDTH)
    centre = tl.sum(r.to(tl.float32) * own_keys.to(tl.float32), 1)

    peak = tl.full((BLOCK_QUERIES,), float("-inf"), tl.float32)
    total = tl.zeros((BLOCK_QUERIES,), tl.float32)
    moment = tl.zeros((BLOCK_QUERIES,), tl.float32)
    plain = tl.zeros((BLOCK_QUERIES, BLOCK_WIDTH), tl.float32)
    tilted = tl.zeros((BLOCK_QUERIES, BLOCK_WIDTH), tl.float32)
    if mask_ptr is None:
        first = tl.maximum(start + offset - window + 1, 0) // BLOCK_KEYS * BLOCK_KEYS
        last = tl.minimum(start + BLOCK_QUERIES + offset, num_keys)
    else:
        mask_ptr += batch * mask_stride_b
        first = 0
        last = num_keys
    for start_keys in range(first, last, BLOCK_KEYS):
        places = start_keys + tl.arange(0, BLOCK_KEYS)
        k = load_rows(k_ptr, places, num_keys, k_stride_s, k_stride_d, WIDTH, BLOCK_WIDTH)
        v = load_rows(v_ptr, places, num_keys, v_stride_s, v_stride_d, WIDTH, BLOCK_WIDTH)
        if mask_ptr is None:
            seen = (places[None, :] <= own[:, None]) & (places[None, :] > own[:, None] - window)
        else:
            seen = load_seen(
                mask_ptr, rows[:, None], places[None, :], num_queries, num_keys, mask_stride_t, mask_stride_s
            )
        s = tl.where(seen, dot(q, tl.trans(k)) * scale, float("-inf"))
        u = dot(r, tl.trans(k)) - centre[:, None]
        peak_now = tl.maximum(peak, tl.max(s, 1))
        # Of a query that has seen no key so far, -inf less -inf would be NaN.
        base = tl.where(peak_now == float("-inf"), 0.0, peak_now)
        rescale = tl.exp2(peak - base)
        w = tl.exp2(s - base[:, None])
        wu = w * u
        total = total * rescale + tl.sum(w, 1)
        moment = moment * rescale + tl.sum(wu, 1)
        plain = dot(w.to(v.dtype), v, plain * rescale[:, None])
        tilted = dot(wu.to(v.dtype), v, tilted * rescale[:, None])
        peak = peak_now

    divisor = tl.where(total == 0.0, 1.0, total)
    inverse = 1.0 / divisor
    c = moment * inverse
    mean = plain * inverse[:, None]
    out = mean * (1.0 + c)[:, None] - tilted * inverse[:, None]
    lse = tl.where(total == 0.0, float("inf"), peak + tl.log2(divisor))
    row = (batch * HEADS + head) * num_queries
    tl.store(lse_ptr + row + rows, lse, rows < num_queries)
    tl.store(c_ptr + row + rows, c + centre, rows < num_queries)
    store_rows(out_ptr + row * WIDTH, out, rows, num_queries, WIDTH, BLOCK_WIDTH)
    store_rows(mean_ptr + row * WIDTH, mean, rows, num_queries, WIDTH, BLOCK_WIDTH)


def launch_forward(
    q: Tensor,
    r: Tensor,
    k: Tensor,
    v: Tensor,
    scale: float,
    window: int | None,
    tile: Tile,
    mask: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Output and mean value (B, H, T, D), lse and c (B, H, T); see `forward_kernel`."""
    batch, heads, num_queries, width = q.shape
    num_keys = k.shape[2]
    output, mean = (torch.empty(q.shape, dtype=q.dtype, device=q.device) for _ in range(2))
    lse, c = (torch.empty(q.shape[:-1], dtype=torch.float32, device=q.device) for _ in range(2))
    grid = (triton.cdiv(num_queries, tile.block_queries), heads, batch)
    forward_kernel[grid](
        *(q, r, k, v, mask, output, mean, lse, c, scale * math.log2(math.e)),
        *(*q.stride(), *r.stride(), *k.stride(), *v.stride(), *mask_strides(mask)),
        *(num_queries, num_keys, num_keys if window is None else window),
        HEADS=heads,
        GROUP=heads // k.shape[1],
        WIDTH=width,
        BLOCK_WIDTH=padded_width(width),
        BLOCK_QUERIES=tile.block_queries,
        BLOCK_KEYS=tile.block_keys,
        num_warps=tile.num_warps,
        num_stages=tile.num_stages,
    )
    return output, mean, lse, c
