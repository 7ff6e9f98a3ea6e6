"""PLLA as batched matrix products over chunks of queries, with memory linear in the length: the path for CPUs.

Registered with PyTorch as operators of their own, so that a compiler and autograd take each for one operation.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from parallax.attention.plla.elementwise import score_gradients, weigh
from parallax.attention.plla.reference import visible

_CHUNK_QUERIES = 128


def chunked_plla(q: Tensor, r: Tensor, k: Tensor, v: Tensor, scale: float, window: int | None = None) -> Tensor:
    """PLLA of q, r (B, H, T, D) over k, v (B, G, S, D), causal, the queries being the last T of S positions.

    11 products of a query chunk with the keys that it sees, forward and backward, where softmax attention has 7.
    """
    output: Tensor = _forward(q, r, k, v, scale, 0 if window is None else window)[0]
    return output


@dataclass(frozen=True)
class _Chunk:
    """Some queries, and the keys that any of them sees."""

    queries: slice
    keys: slice
    seen: Tensor
    """(C, S') boolean."""


def _chunks(num_queries: int, num_keys: int, window: int, device: torch.device) -> Iterator[_Chunk]:
    offset = num_keys - num_queries
    for start in range(0, num_queries, _CHUNK_QUERIES):
        stop = min(start + _CHUNK_QUERIES, num_queries)
        first = max(0, start + offset - window + 1) if window else 0
        end = stop + offset
        seen = visible(stop - start, end, window or None, device)[:, first:]
        yield _Chunk(slice(start, stop), slice(first, end), seen)


@torch.library.custom_op("parallax::plla_chunked", mutates_args=())
def _forward(
    q: Tensor, r: Tensor, k: Tensor, v: Tensor, scale: float, window: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Output (B, H, T, D), and by row the log-sum-exp of the scores and c, (B, H, T), fp32 or wider."""
    with torch.autocast(q.device.type, enabled=False):
        queries, directions, keys, values, own = _grouped(q, r, k, v, scale)
        output = torch.empty_like(queries)
        lse = torch.empty(queries.shape[:-1], dtype=own.dtype, device=q.device)
        c = torch.empty_like(lse)
        for chunk in _chunks(q.shape[2], k.shape[2], window, q.device):
            scores, u = _scores(queries, directions, keys, own, chunk)
            weights, lse[:, :, chunk.queries], c[:, :, chunk.queries] = weigh(scores, u, chunk.seen)
            output[:, :, chunk.queries] = _product(weights, values[:, chunk.keys])
        return output.reshape(q.shape), lse.reshape(q.shape[:-1]), c.reshape(q.shape[:-1])


@_forward.register_fake
def _(q: Tensor, r: Tensor, k: Tensor, v: Tensor, scale: float, window: int) -> tuple[Tensor, Tensor, Tensor]:
    wide = torch.float64 if q.dtype == torch.float64 else torch.float32
    rows = q.new_empty(q.shape[:-1], dtype=wide)
    return torch.empty_like(q, memory_format=torch.contiguous_format), rows, torch.empty_like(rows)


@torch.library.custom_op("parallax::plla_chunked_backward", mutates_args=())
def _backward(
    grad: Tensor,
    q: Tensor,
    r: Tensor,
    k: Tensor,
    v: Tensor,
    output: Tensor,
    lse: Tensor,
    c: Tensor,
    scale: float,
    window: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of q, r, k and v; see `score_gradients`. dk and dv are summed in fp32 (fp64)."""
    with torch.autocast(q.device.type, enabled=False):
        queries, directions, keys, values, own = _grouped(q, r, k, v, scale)
        grads = grad.reshape(queries.shape)
        rows = (own.shape[0], own.shape[1], -1)
        lse, c = lse.reshape(rows), c.reshape(rows)
        phi = (grads.to(own.dtype) * output.reshape(queries.shape)).sum(-1)
        grad_queries, grad_directions = torch.empty_like(queries), torch.empty_like(queries)
        grad_keys, grad_values = (torch.zeros_like(t, dtype=own.dtype) for t in (keys, values))
        for chunk in _chunks(q.shape[2], k.shape[2], window, q.device):
            part = chunk.queries
            scores, u = _scores(queries, directions, keys, own, chunk)
            a = _product(grads[:, :, part], values[:, chunk.keys].mT)
            of_rows = (lse[:, :, part], c[:, :, part], phi[:, :, part])
            weights, ds, du = score_gradients(scores, u, a, chunk.seen, *of_rows)
            grad_queries[:, :, part] = _product(ds, keys[:, chunk.keys])
            grad_directions[:, :, part] = _product(du, keys[:, chunk.keys])
            grad_values[:, chunk.keys] += _outer(weights, grads[:, :, part])
            grad_keys[:, chunk.keys] += _outer(ds, queries[:, :, part])
            grad_keys[:, chunk.keys] += _outer(du, directions[:, :, part])
        return (
            (grad_queries * scale).reshape(q.shape),
            grad_directions.reshape(r.shape),
            grad_keys.to(k.dtype).reshape(k.shape),
            grad_values.to(v.dtype).reshape(v.shape),
        )


@_backward.register_fake
def _(grad: Tensor, q: Tensor, r: Tensor, k: Tensor, v: Tensor, *others: Any) -> tuple[Tensor, ...]:
    return tuple(torch.empty_like(t, memory_format=torch.contiguous_format) for t in (q, r, k, v))


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    *tensors, ctx.scale, ctx.window = inputs
    ctx.save_for_backward(*tensors, *output)


def _gradients(ctx: Any, grad: Tensor, *of_rows: Tensor | None) -> tuple[Tensor | None, ...]:
    return (*_backward(grad, *ctx.saved_tensors, ctx.scale, ctx.window), None, None)


_forward.register_autograd(_gradients, setup_context=_keep)


def _grouped(
    q: Tensor, r: Tensor, k: Tensor, v: Tensor, scale: float
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Scaled q and r (B G, H / G, T, D), k less the first and v (B G, S, D), r.k of own keys (B G, H / G, T)."""
    batch, groups, _, width = k.shape
    queries, directions = (t.reshape(batch * groups, -1, q.shape[2], width) for t in (q * scale, r))
    keys, values = (t.reshape(batch * groups, -1, width) for t in (k, v))
    wide = torch.float64 if q.dtype == torch.float64 else torch.float32
    # A vector added to all keys changes nothing, gradients included: without what they share, products that come
    # in half precision keep their digits.
    keys = (keys.to(wide) - keys[:, :1].to(wide)).to(k.dtype)
    own = keys[:, None, k.shape[2] - q.shape[2] :].to(wide)
    return queries, directions, keys, values, (directions.to(wide) * own).sum(-1)


def _scores(
    queries: Tensor, directions: Tensor, keys: Tensor, own: Tensor, chunk: _Chunk
) -> tuple[Tensor, Tensor]:
    """Scale q.k and centred r.k (N, R, C, S') of a chunk, from one product."""
    both = torch.cat((queries[:, :, chunk.queries], directions[:, :, chunk.queries]), dim=1)
    scores, u = _product(both, keys[:, chunk.keys].mT).chunk(2, dim=1)
    return scores, u - own[:, :, chunk.queries, None].to(u.dtype)


def _product(rows: Tensor, matrix: Tensor) -> Tensor:
    """(N, R, C, X) by (N, X, Y): the query heads of a key head are rows of one product."""
    return torch.bmm(rows.flatten(1, 2), matrix).view(*rows.shape[:-1], matrix.shape[-1])


def _outer(rows: Tensor, others: Tensor) -> Tensor:
    """(N, R, C, S) and (N, R, C, D) -> (N, S, D): summed over heads and queries."""
    return torch.bmm(rows.flatten(1, 2).mT, others.flatten(1, 2))
