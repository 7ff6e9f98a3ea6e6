"""Backward of PLLA for queries: a program takes a tile of them over the keys that they see, with a_j = g.v_j,

    dq = scale sum ds k,   ds = p ((a - phi) + (c - u) (a - mean a)),   phi = g.o,
    dr = sum du k,         du = -p (a - mean a),                        mean a = g.E_p[v].

Over all keys ds and du sum to zero. Rounded to half precision they do not, and the rest would show times what keys
share: so it is taken off, times the query's own key.
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
def backward_queries_kernel(
    g_ptr,
    q_ptr,
    r_ptr,
    k_ptr,
    v_ptr,
    mask_ptr,
    out_ptr,
    mean_ptr,
    lse_ptr,
    c_ptr,
    dq_ptr,
    dr_ptr,
    phi_ptr,
    mean_a_ptr,
    scale,
    log2_scale,
    g_stride_b,
    g_stride_h,
    g_stride_t,
    g_stride_d,
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
    """Grid (blocks of queries, H, B). log2_scale is scale times log2(e); the rest of the forward is as it left it.

    Writes dq and dr (B, H, T, D), and phi and mean a (B, H, T) fp32, which the keys' backward reads.
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
    row = (batch * HEADS + head) * num_queries
    g_ptr += batch * g_stride_b + head * g_stride_h
    q_ptr += batch * q_stride_b + head * q_stride_h
    r_ptr += batch * r_stride_b + head * r_stride_h
    g = load_rows(g_ptr, rows, num_queries, g_stride_t, g_stride_d, WIDTH, BLOCK_WIDTH)
    out = load_rows(out_ptr + row * WIDTH, rows, num_queries, WIDTH, 1, WIDTH, BLOCK_WIDTH)
    mean = load_rows(mean_ptr + row * WIDTH, rows, num_queries, WIDTH, 1, WIDTH, BLOCK_WIDTH)
    phi = tl.sum(g.to(tl.float32) * out.to(tl.float32), 1)
    mean_a = tl.sum(g.to(tl.float32) * mean.to(tl.float32), 1)
    tl.store(phi_ptr + row + rows, phi, rows < num_queries)
    tl.store(mean_a_ptr + row + rows, mean_a, rows < num_queries)
    q = load_rows(q_ptr, rows, num_queries, q_stride_t, q_stride_d, WIDTH, BLOCK_WIDTH)
    r = load_rows(r_ptr, rows, num_queries, r_stride_t, r_stride_d, WIDTH, BLOCK_WIDTH)
    lse = tl.load(lse_ptr + row + rows, rows < num_queries, float("inf"))
    c = tl.load(c_ptr + row + rows, rows < num_queries, 0.0)

    dq = tl.zeros((BLOCK_QUERIES, BLOCK_WIDTH), tl.float32)
    dr = tl.zeros((BLOCK_QUERIES, BLOCK_WIDTH), tl.float32)
    lost_s = tl.zeros((BLOCK_QUERIES,), tl.float32)
    lost_u = tl.zeros((BLOCK_QUERIES,), tl.float32)
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
        s = tl.where(seen, dot(q, tl.trans(k)) * log2_scale, float("-inf"))
        p = tl.exp2(s - lse[:, None])
        rest = c[:, None] - dot(r, tl.trans(k))
        a = dot(g, tl.trans(v))
        centred = a - mean_a[:, None]
        ds = (p * ((a - phi[:, None]) + rest * centred)).to(k.dtype)
        du = (-p * centred).to(k.dtype)
        lost_s += tl.sum(ds.to(tl.float32), 1)
        lost_u += tl.sum(du.to(tl.float32), 1)
        dq = dot(ds, k, dq)
        dr = dot(du, k, dr)

    own_keys = load_rows(k_ptr, own, num_keys, k_stride_s, k_stride_d, WIDTH, BLOCK_WIDTH).to(tl.float32)
    dq = (dq - lost_s[:, None] * own_keys) * scale
    dr = dr - lost_u[:, None] * own_keys
    store_rows(dq_ptr + row * WIDTH, dq, rows, num_queries, WIDTH, BLOCK_WIDTH)
    store_rows(dr_ptr + row * WIDTH, dr, rows, num_queries, WIDTH, BLOCK_WIDTH)


def launch_backward_queries(
    grad: Tensor,
    q: Tensor,
    r: Tensor,
    k: Tensor,
    v: Tensor,
    output: Tensor,
    mean: Tensor,
    lse: Tensor,
    c: Tensor,
    scale: float,
    window: int | None,
    tile: Tile,
    mask: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients dq and dr (B, H, T, D), phi and mean a (B, H, T); see `backward_queries_kernel`."""
    batch, heads, num_queries, width = q.shape
    num_keys = k.shape[2]
    dq, dr = (torch.empty(q.shape, dtype=q.dtype, device=q.device) for _ in range(2))
    phi, mean_a = torch.empty_like(lse), torch.empty_like(lse)
    grid = (triton.cdiv(num_queries, tile.block_queries), heads, batch)
    backward_queries_kernel[grid](
        *(grad, q, r, k, v, mask, output, mean, lse, c, dq, dr, phi, mean_a, scale, scale * math.log2(math.e)),
        *(*grad.stride(), *q.stride(), *r.stride(), *k.stride(), *v.stride(), *mask_strides(mask)),
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
    return dq, dr, phi, mean_a
