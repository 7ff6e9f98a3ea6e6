"""Split-KV decoding: one new query a row, the keys of a row shared out among programs, their sums merged.

A program holds the q and the r of all query heads of a key head as rows of one tile, so keys and values are read
once, and the matrix products are as many as softmax attention's. Over its keys it keeps, per head,

    peak = max s,   total = sum w,   moment = sum w u,   O1 = sum w v,   O2 = sum w u v,   w = exp2(s - peak),

with s = log2(e) scale q.k and u = r.(k - k_own). Sums are linear in w, so those of several
programs merge by rescaling to one peak. Who of a row's programs arrives last, by a counter, merges.
"""

import triton
import triton.language as tl

from parallax.attention.plla.triton.dot import dot
from parallax.attention.plla.triton.memory import load_rows
from parallax.attention.plla.triton.stacking import stack, unstack

_MERGED_NUMBERS = tl.constexpr(4096)


@triton.jit(do_not_specialize=["num_keys", "num_splits"])
def decode_kernel(
    q_ptr,
    r_ptr,
    k_ptr,
    v_ptr,
    out_ptr,
    lengths_ptr,
    sums_ptr,
    rows_ptr,
    arrived_ptr,
    scale,
    q_stride_b,
    q_stride_h,
    q_stride_d,
    r_stride_b,
    r_stride_h,
    r_stride_d,
    k_stride_b,
    k_stride_s,
    k_stride_g,
    k_stride_d,
    v_stride_b,
    v_stride_s,
    v_stride_g,
    v_stride_d,
    num_keys,
    num_splits,
    HEADS: tl.constexpr,
    GROUP: tl.constexpr,
    WIDTH: tl.constexpr,
    BLOCK_HEADS: tl.constexpr,
    BLOCK_KEYS: tl.constexpr,
    BLOCK_WIDTH: tl.constexpr,
    SPLIT: tl.constexpr,
):
    """Grid (num_splits, key heads x blocks of a group, B). scale includes log2(e). out (B, 1, H, D), contiguous.

    lengths (B,), or None: all num_keys. With more than one program a row SPLIT is true, and there are sums
    (B, H, splits, 2, D), rows (3, B, H, splits) and arrived (B, blocks), which is zero.
    """
    split, block, batch = tl.program_id(0), tl.program_id(1), tl.program_id(2).to(tl.int64)
    blocks_of_group: tl.constexpr = (GROUP + BLOCK_HEADS - 1) // BLOCK_HEADS
    key_head = (block // blocks_of_group).to(tl.int64)
    of_group = (block % blocks_of_group) * BLOCK_HEADS + tl.arange(0, BLOCK_HEADS)
    heads = key_head * GROUP + of_group
    real = of_group < GROUP
    columns = tl.arange(0, BLOCK_WIDTH)
    inside = real[:, None] & (columns < WIDTH)[None, :]
    q_ptr += batch * q_stride_b + key_head * GROUP * q_stride_h
    q = load_rows(q_ptr, of_group, GROUP, q_stride_h, q_stride_d, WIDTH, BLOCK_WIDTH)
    r_ptr += batch * r_stride_b + key_head * GROUP * r_stride_h
    r = load_rows(r_ptr, of_group, GROUP, r_stride_h, r_stride_d, WIDTH, BLOCK_WIDTH)

    length = num_keys
    if lengths_ptr is not None:
        length = tl.minimum(tl.load(lengths_ptr + batch).to(tl.int32), num_keys)
    k_ptr += batch * k_stride_b + key_head * k_stride_g
    v_ptr += batch * v_stride_b + key_head * v_stride_g
    own_ptr = k_ptr + (length - 1).to(tl.int64) * k_stride_s
    own = tl.load(own_ptr + columns * k_stride_d, (columns < WIDTH) & (length > 0), 0.0).to(tl.float32)
    centre = tl.sum(r.to(tl.float32) * own[None, :], 1)

    num_tiles = tl.cdiv(length, BLOCK_KEYS)
    first = num_tiles * split // num_splits * BLOCK_KEYS
    last = tl.minimum(num_tiles * (split + 1) // num_splits * BLOCK_KEYS, length)
    peak, total, moment, sums = _attend(
        stack(q, r),
        centre,
        k_ptr,
        v_ptr,
        k_stride_s,
        k_stride_d,
        v_stride_s,
        v_stride_d,
        first,
        last,
        scale,
        WIDTH,
        BLOCK_KEYS,
        BLOCK_WIDTH,
    )
    o1, o2 = unstack(sums)
    row = batch * HEADS + heads
    if SPLIT:
        of_row = row * num_splits + split
        apart = tl.num_programs(2).to(tl.int64) * HEADS * num_splits
        tl.store(rows_ptr + of_row, peak, real)
        tl.store(rows_ptr + apart + of_row, total, real)
        tl.store(rows_ptr + 2 * apart + of_row, moment, real)
        places = of_row[:, None] * (2 * WIDTH) + columns[None, :]
        tl.store(sums_ptr + places, o1, inside)
        tl.store(sums_ptr + WIDTH + places, o2, inside)
        # One thread counts for all: what the others stored has to be there first.
        tl.debug_barrier()
        arrived = tl.atomic_add(arrived_ptr + batch * tl.num_programs(1) + block, 1, sem="acq_rel", scope="gpu")
        if arrived == num_splits - 1:
            _merge(sums_ptr, rows_ptr, out_ptr, row, real, num_splits, apart, WIDTH, BLOCK_HEADS, BLOCK_WIDTH)
    else:
        _store_output(out_ptr, row, real, total, moment, o1, o2, WIDTH, BLOCK_WIDTH)


@triton.jit
def _attend(
    stacked,
    centre,
    k_ptr,
    v_ptr,
    k_stride_s,
    k_stride_d,
    v_stride_s,
    v_stride_d,
    first,
    last,
    scale,
    WIDTH: tl.constexpr,
    BLOCK_KEYS: tl.constexpr,
    BLOCK_WIDTH: tl.constexpr,
):
    """peak, total, moment (heads,) and O1 above O2 (2 heads, D) over the keys from `first` to before `last`."""
    peak = tl.full(centre.shape, float("-inf"), tl.float32)
    # Added up over the tile's columns after the loop: sums over warps want barriers.
    totals = tl.zeros((centre.shape[0], BLOCK_KEYS), tl.float32)
    moments = tl.zeros((centre.shape[0], BLOCK_KEYS), tl.float32)
    sums = tl.zeros((stacked.shape[0], BLOCK_WIDTH), tl.float32)
    for start in range(first, last, BLOCK_KEYS):
        places = start + tl.arange(0, BLOCK_KEYS)
        k = load_rows(k_ptr, places, last, k_stride_s, k_stride_d, WIDTH, BLOCK_WIDTH)
        v = load_rows(v_ptr, places, last, v_stride_s, v_stride_d, WIDTH, BLOCK_WIDTH)
        s, u = unstack(dot(stacked, tl.trans(k)))
        s = tl.where((places < last)[None, :], s * scale, float("-inf"))
        largest = tl.maximum(peak, tl.max(s, 1))
        rescale = tl.exp2(peak - largest)
        p = tl.exp2(s - largest[:, None])
        pu = p * (u - centre[:, None])
        totals = totals * rescale[:, None] + p
        moments = moments * rescale[:, None] + pu
        both = stack(rescale[:, None], rescale[:, None])
        sums = dot(stack(p, pu).to(v.dtype), v, sums * both)
        peak = largest
    return peak, tl.sum(totals, 1), tl.sum(moments, 1), sums


@triton.jit
def _merge(
    sums_ptr,
    rows_ptr,
    out_ptr,
    row,
    real,
    num_splits,
    apart,
    WIDTH: tl.constexpr,
    BLOCK_HEADS: tl.constexpr,
    BLOCK_WIDTH: tl.constexpr,
):
    """Output of a row's heads from the sums of all its programs, in their order, whoever came last."""
    columns = tl.arange(0, BLOCK_WIDTH)
    peak = tl.full((BLOCK_HEADS,), float("-inf"), tl.float32)
    total = tl.zeros((BLOCK_HEADS,), tl.float32)
    moment = tl.zeros((BLOCK_HEADS,), tl.float32)
    o1 = tl.zeros((BLOCK_HEADS, BLOCK_WIDTH), tl.float32)
    o2 = tl.zeros((BLOCK_HEADS, BLOCK_WIDTH), tl.float32)
    # As many programs' sums at a time as registers hold: their loads are under way together.
    of_split: tl.constexpr = BLOCK_HEADS * BLOCK_WIDTH
    at_once: tl.constexpr = _MERGED_NUMBERS // of_split if of_split < _MERGED_NUMBERS else 1
    for first in range(0, num_splits, at_once):
        splits = first + tl.arange(0, at_once)
        there = (splits < num_splits)[:, None] & real[None, :]
        of_rows = row[None, :] * num_splits + splits[:, None]
        # Others wrote them in this launch: past the multiprocessor's own cache.
        peaks = tl.load(rows_ptr + of_rows, there, float("-inf"), cache_modifier=".cg")
        totals = tl.load(rows_ptr + apart + of_rows, there, 0.0, cache_modifier=".cg")
        moments = tl.load(rows_ptr + 2 * apart + of_rows, there, 0.0, cache_modifier=".cg")
        inside = there[:, :, None] & (columns < WIDTH)[None, None, :]
        places = sums_ptr + of_rows[:, :, None] * (2 * WIDTH) + columns[None, None, :]
        o1s = tl.load(places, inside, 0.0, cache_modifier=".cg")
        o2s = tl.load(places + WIDTH, inside, 0.0, cache_modifier=".cg")
        largest = tl.maximum(peak, tl.max(peaks, 0))
        # No key seen so far: -inf less -inf would be NaN.
        base = tl.where(largest == float("-inf"), 0.0, largest)
        rescale, weights = tl.exp2(peak - base), tl.exp2(peaks - base[None, :])
        total = total * rescale + tl.sum(weights * totals, 0)
        moment = moment * rescale + tl.sum(weights * moments, 0)
        o1 = o1 * rescale[:, None] + tl.sum(weights[:, :, None] * o1s, 0)
        o2 = o2 * rescale[:, None] + tl.sum(weights[:, :, None] * o2s, 0)
        peak = largest
    _store_output(out_ptr, row, real, total, moment, o1, o2, WIDTH, BLOCK_WIDTH)


@triton.jit
def _store_output(out_ptr, row, real, total, moment, o1, o2, WIDTH: tl.constexpr, BLOCK_WIDTH: tl.constexpr):
    """Writes o = (O1 (1 + moment / total) - O2) / total; zero where there was no key."""
    columns = tl.arange(0, BLOCK_WIDTH)
    inverse = (1.0 / tl.where(total == 0.0, 1.0, total))[:, None]
    o = (o1 * (1.0 + moment[:, None] * inverse) - o2) * inverse
    inside = real[:, None] & (columns < WIDTH)[None, :]
    tl.store(out_ptr + row[:, None] * WIDTH + columns[None, :], o.to(out_ptr.dtype.element_ty), inside)
