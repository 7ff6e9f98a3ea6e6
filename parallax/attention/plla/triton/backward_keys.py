"""Backward of PLLA for keys: a program takes some of them over the queries that see them, of all heads of a group,

    dv = sum w g,   w = p (1 + c - u),      dk = sum scale ds q + du r,

with ds and du as in the queries' backward. Scores stand transposed, a row a key. One program sums a tile, in one
order, so the result is the same each time.
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
def backward_keys_kernel(
    g_ptr,
    q_ptr,
    r_ptr,
    k_ptr,
    v_ptr,
    mask_ptr,
    lse_ptr,
    c_ptr,
    phi_ptr,
    mean_a_ptr,
    dk_ptr,
    dv_ptr,
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
    KEY_HEADS: tl.constexpr,
    GROUP: tl.constexpr,
    WIDTH: tl.constexpr,
    BLOCK_WIDTH: tl.constexpr,
    BLOCK_QUERIES: tl.constexpr,
    BLOCK_KEYS: tl.constexpr,
):
    """Grid (blocks of keys, G, B). log2_scale is scale times log2(e); phi and mean a are of the queries' backward.

    Writes dk and dv (B, G, S, D).
    """
    key_head, batch = tl.program_id(1).to(tl.int64), tl.program_id(2).to(tl.int64)
    k_ptr += batch * k_stride_b + key_head * k_stride_g
    v_ptr += batch * v_stride_b + key_head * v_stride_g
    start = tl.program_id(0) * BLOCK_KEYS
    places = start + tl.arange(0, BLOCK_KEYS)
    k = load_rows(k_ptr, places, num_keys, k_stride_s, k_stride_d, WIDTH, BLOCK_WIDTH)
    v = load_rows(v_ptr, places, num_keys, v_stride_s, v_stride_d, WIDTH, BLOCK_WIDTH)
    dk = tl.zeros((BLOCK_KEYS, BLOCK_WIDTH), tl.float32)
    dv = tl.zeros((BLOCK_KEYS, BLOCK_WIDTH), tl.float32)
    offset = num_keys - num_queries
    if mask_ptr is None:
        first = tl.maximum(start - offset, 0) // BLOCK_QUERIES * BLOCK_QUERIES
        last = tl.minimum(start + BLOCK_KEYS - 1 + window - offset, num_queries)
    else:
        mask_ptr += batch * mask_stride_b
        first = 0
        last = num_queries
    for head in range(key_head * GROUP, (key_head + 1) * GROUP):
        g_head = g_ptr + batch * g_stride_b + head * g_stride_h
        q_head = q_ptr + batch * q_stride_b + head * q_stride_h
        r_head = r_ptr + batch * r_stride_b + head * r_stride_h
        row = (batch * KEY_HEADS * GROUP + head) * num_queries
        for start_queries in range(first, last, BLOCK_QUERIES):
            rows = start_queries + tl.arange(0, BLOCK_QUERIES)
            real = rows < num_queries
            g = load_rows(g_head, rows, num_queries, g_stride_t, g_stride_d, WIDTH, BLOCK_WIDTH)
            q = load_rows(q_head, rows, num_queries, q_stride_t, q_stride_d, WIDTH, BLOCK_WIDTH)
            r = load_rows(r_head, rows, num_queries, r_stride_t, r_stride_d, WIDTH, BLOCK_WIDTH)
            lse = tl.load(lse_ptr + row + rows, real, float("inf"))
            c = tl.load(c_ptr + row + rows, real, 0.0)
            phi = tl.load(phi_ptr + row + rows, real, 0.0)
            mean_a = tl.load(mean_a_ptr + row + rows, real, 0.0)
            if mask_ptr is None:
                own = rows + offset
                seen = (places[:, None] <= own[None, :]) & (places[:, None] > own[None, :] - window)
            else:
                seen = load_seen(
                    mask_ptr, rows[None, :], places[:, None], num_queries, num_keys, mask_stride_t, mask_stride_s
                )
            s = tl.where(seen, dot(k, tl.trans(q)) * log2_scale, float("-inf"))
            p = tl.exp2(s - lse[None, :])
            rest = c[None, :] - dot(k, tl.trans(r))
            dv = dot((p * (1.0 + rest)).to(g.dtype), g, dv)
            a = dot(v, tl.trans(g))
            centred = a - mean_a[None, :]
            ds = p * ((a - phi[None, :]) + rest * centred)
            dk = dot((ds * scale).to(q.dtype), q, dk)
            dk = dot((-p * centred).to(r.dtype), r, dk)

    row = (batch * KEY_HEADS + key_head) * num_keys
    store_rows(dk_ptr + row * WIDTH, dk, places, num_keys, WIDTH, BLOCK_WIDTH)
    store_rows(dv_ptr + row * WIDTH, dv, places, num_keys, WIDTH, BLOCK_WIDTH)


def launch_backward_keys(
    grad: Tensor,
    q: Tensor,
    r: Tensor,
    k: Tensor,
    v: Tensor,
    lse: Tensor,
    c: Tensor,
    phi: Tensor,
    mean_a: Tensor,
    scale: float,
    window: int | None,
    tile: Tile,
    mask: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Gradients dk and dv (B, G, S, D); see `backward_keys_kernel`."""
    batch, heads, num_queries, width = q.shape
    _, key_heads, num_keys, _ = k.shape
    dk, dv = (torch.empty(k.shape, dtype=k.dtype, device=k.device) for _ in range(2))
    grid = (triton.cdiv(num_keys, tile.block_keys), key_heads, batch)
    backward_keys_kernel[grid](
        *(grad, q, r, k, v, mask, lse, c, phi, mean_a, dk, dv, scale, scale * math.log2(math.e)),
        *(*grad.stride(), *q.stride(), *r.stride(), *k.stride(), *v.stride(), *mask_strides(mask)),
        *(num_queries, num_keys, num_keys if window is None else window),
        KEY_HEADS=key_heads,
        GROUP=heads // key_heads,
        WIDTH=width,
        BLOCK_WIDTH=padded_width(width),
        BLOCK_QUERIES=tile.block_queries,
        BLOCK_KEYS=tile.block_keys,
        num_warps=tile.num_warps,
        num_stages=tile.num_stages,
    )
    return dk, dv
