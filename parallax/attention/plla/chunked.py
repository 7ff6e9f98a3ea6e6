"""PLLA as batched matrix products over chunks of queries, with memory linear in the length: the path for CPUs.

Registered with PyTorch as operators of their own, so that a compiler and autograd take each for one operation.
"""

from typing import Any

import torch
from torch import Tensor

from parallax.attention.plla.chunks import Chunk, chunks_of
from parallax.attention.plla.elementwise import score_gradients, weigh
from parallax.attention.plla.fused import fused
from parallax.runtime.device import cpu_has_bf16

_LEAST_FUSED = 1 << 22
"""Scores of a call from which compiling what lies between the products is worth its seconds."""
_weigh, _score_gradients = fused(weigh), fused(score_gradients)


def chunked_plla(
    q: Tensor,
    r: Tensor,
    k: Tensor,
    v: Tensor,
    scale: float,
    window: int | None = None,
    mask: Tensor | None = None,
) -> Tensor:
    """PLLA of q, r (B, H, T, D) over k, v (B, G, S, D), the queries being the last T of S positions.

    11 products of a query chunk with the keys that it sees, forward and backward, where softmax attention has 7.

    Args:
        q: queries.
        r: directions.
        k: keys.
        v: values.
        scale: of q.k.
        window: how many of the newest keys a query sees, its own among them; None: all up to its own.
        mask: (B or 1, 1, T, S) boolean, true where a query may look, instead of the causal triangle and window.
    """
    output: Tensor = _forward(q, r, k, v, mask, scale, 0 if window is None else window)[0]
    return output


@torch.library.custom_op("parallax::plla_chunked", mutates_args=())
def _forward(
    q: Tensor, r: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float, window: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Output (B, H, T, D), and by row the log-sum-exp of the scores and c, (B, H, T), fp32 or wider."""
    with torch.autocast(q.device.type, enabled=False):
        queries, directions, keys, values = _grouped(q, r, k, v)
        output = torch.empty(queries.shape, dtype=q.dtype, device=q.device)
        lse = torch.empty(queries.shape[:-1], dtype=_wide(q), device=q.device)
        c = torch.empty_like(lse)
        weights_of = _weigh if _pays(q, k) else weigh
        for part in chunks_of(queries, keys, window, mask):
            both = _stacked(directions, queries, part)
            products = _products(both, keys[part.columns], queries[part.rows])
            weights, of_row, corrections = weights_of(products, part.own, part.first, part.mask, scale)
            attended = torch.bmm(weights.flatten(1, 2), values[part.columns])
            output[part.rows] = attended.view(output[part.rows].shape)
            lse[part.rows], c[part.rows] = of_row, corrections
        return output.view(q.shape), lse.view(q.shape[:-1]), c.view(q.shape[:-1])


@_forward.register_fake
def _(
    q: Tensor, r: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float, window: int
) -> tuple[Tensor, Tensor, Tensor]:
    rows = q.new_empty(q.shape[:-1], dtype=_wide(q))
    return torch.empty_like(q, memory_format=torch.contiguous_format), rows, torch.empty_like(rows)


@torch.library.custom_op("parallax::plla_chunked_backward", mutates_args=())
def _backward(
    grad: Tensor,
    q: Tensor,
    r: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None,
    output: Tensor,
    lse: Tensor,
    c: Tensor,
    scale: float,
    window: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of q, r, k and v; see `score_gradients`. dk and dv are summed in fp32 (fp64)."""
    with torch.autocast(q.device.type, enabled=False):
        queries, directions, keys, values = _grouped(q, r, k, v)
        grads = grad.reshape(queries.shape).to(queries.dtype)
        lse, c = lse.view(queries.shape[:-1]), c.view(queries.shape[:-1])
        phi = (grads.to(lse.dtype) * output.view(queries.shape)).sum(-1)
        grad_queries, grad_directions = (torch.empty(queries.shape, dtype=q.dtype, device=q.device) for _ in "qr")
        grad_keys, grad_values = (torch.zeros(keys.shape, dtype=lse.dtype, device=q.device) for _ in "kv")
        gradients_of = _score_gradients if _pays(q, k) else score_gradients
        for part in chunks_of(queries, keys, window, mask):
            rows, columns = part.rows, part.columns
            both, asked = _stacked(directions, queries, part), grads[rows].flatten(1, 2)
            products = _products(both, keys[columns], queries[rows])
            a = torch.bmm(asked, values[columns].mT).view(products[:, 0].shape)
            weights, of_scores = gradients_of(
                products, a, part.own, part.first, part.mask, scale, lse[rows], c[rows], phi[rows]
            )
            of_scores = of_scores.flatten(1, 3)
            of_rows = torch.bmm(of_scores, keys[columns]).view(len(both), 2, *queries[rows].shape[1:])
            grad_directions[rows], grad_queries[rows] = of_rows.unbind(1)
            _add_outer(grad_values[columns], weights.flatten(1, 2), asked)
            _add_outer(grad_keys[columns], of_scores, both)
        return (
            grad_queries.view(q.shape),
            grad_directions.view(r.shape),
            grad_keys.to(k.dtype).view(k.shape),
            grad_values.to(v.dtype).view(v.shape),
        )


@_backward.register_fake
def _(grad: Tensor, q: Tensor, r: Tensor, k: Tensor, v: Tensor, *others: Any) -> tuple[Tensor, ...]:
    return tuple(torch.empty_like(t, memory_format=torch.contiguous_format) for t in (q, r, k, v))


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    *tensors, ctx.scale, ctx.window = inputs
    ctx.save_for_backward(*tensors, *output)


def _gradients(ctx: Any, grad: Tensor, *of_rows: Tensor | None) -> tuple[Tensor | None, ...]:
    # What the forward gave has a history, for which a compiler would make code of its own.
    saved = [None if tensor is None else tensor.detach() for tensor in ctx.saved_tensors]
    return (*_backward(grad, *saved, ctx.scale, ctx.window), None, None, None)


_forward.register_autograd(_gradients, setup_context=_keep)


def _wide(tensor: Tensor) -> torch.dtype:
    return torch.promote_types(tensor.dtype, torch.float32)


def _pays(q: Tensor, k: Tensor) -> bool:
    return 2 * q.shape[:-1].numel() * k.shape[2] >= _LEAST_FUSED


def _grouped(q: Tensor, r: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Of q and r (B G, H / G, T, D), of k less the first and v (B G, S, D), in the type that is multiplied."""
    batch, groups, _, width = k.shape
    narrow = _multiplied_in(q)
    queries, directions = (t.reshape(batch * groups, -1, q.shape[2], width).to(narrow) for t in (q, r))
    keys, values = (t.reshape(batch * groups, -1, width) for t in (k, v))
    # A vector added to all keys changes nothing, gradients included: without what they share, products that come
    # in half precision keep their digits.
    wide = _wide(q)
    return queries, directions, (keys.to(wide) - keys[:, :1].to(wide)).to(narrow), values.to(narrow)


def _multiplied_in(tensor: Tensor) -> torch.dtype:
    """The tensors' own type; fp32 for bf16 on a CPU without its instructions: products would be emulated."""
    emulated = tensor.dtype == torch.bfloat16 and tensor.device.type == "cpu" and not cpu_has_bf16()
    return torch.float32 if emulated else tensor.dtype


def _stacked(directions: Tensor, queries: Tensor, part: Chunk) -> Tensor:
    """(N, 2 R C, D): both are rows of the same products."""
    return torch.stack((directions[part.rows], queries[part.rows]), dim=1).flatten(1, 3)


def _products(both: Tensor, keys: Tensor, queries: Tensor) -> Tensor:
    """(N, 2, R, C, S) r.k and q.k of the keys (N, S, D), for queries (N, R, C, D)."""
    return torch.bmm(both, keys.mT).view(len(both), 2, *queries.shape[1:3], keys.shape[1])


def _add_outer(sums: Tensor, rows: Tensor, others: Tensor) -> None:
    """Adds (N, S, D) sums over rows of (N, X, S) and (N, X, D); in place of the product where types allow."""
    if sums.dtype == rows.dtype:
        sums.baddbmm_(rows.mT, others)
    else:
        sums += torch.bmm(rows.mT, others)
