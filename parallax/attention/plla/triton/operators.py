"""PLLA by Triton kernels, as operators of PyTorch's: a compiler and autograd take each for one operation."""

from typing import Any

import torch
from torch import Tensor

from parallax.attention.plla.triton.backward_keys import launch_backward_keys
from parallax.attention.plla.triton.backward_queries import launch_backward_queries
from parallax.attention.plla.triton.forward import launch_forward
from parallax.attention.plla.triton.tiles import Tile, tiles_for

_TYPES = (torch.float32, torch.float16, torch.bfloat16)
_INTERPRETED_AS = (8, 0)


def triton_plla(
    q: Tensor,
    r: Tensor,
    k: Tensor,
    v: Tensor,
    scale: float,
    window: int | None = None,
    mask: Tensor | None = None,
) -> Tensor:
    """PLLA of q, r (B, H, T, D) over k, v (B, G, S, D), causal, the queries being the last T of S positions.

    Or with a mask, (B or 1, 1, T, S) boolean, true where a query may look: then all keys are gone over, and the
    window is not asked. A query that sees no key gives zero.

    Strides may be any, nothing is copied. D is 256 at most, 128 in fp32. CPU tensors are for Triton's interpreter
    (TRITON_INTERPRET=1). The kernels have never run on a GPU.

    Raises:
        ValueError: inputs not all of one type, fp32, fp16 or bf16; heads that are wider; a GPU before 8.0.
    """
    if q.dtype not in _TYPES or any(t.dtype != q.dtype for t in (r, k, v)):
        types = ", ".join(str(t.dtype).removeprefix("torch.") for t in (q, r, k, v))
        raise ValueError(f"q, r, k, v are {types}: the kernels take one type, float32, float16 or bfloat16")
    output: Tensor = _forward(q, r, k, v, scale, 0 if window is None else window, mask)[0]
    return output


@torch.library.custom_op("parallax::plla_triton", mutates_args=())
def _forward(
    q: Tensor, r: Tensor, k: Tensor, v: Tensor, scale: float, window: int, mask: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Output and mean value (B, H, T, D), and by row the log-sum-exp of the scores, base 2, and c, (B, H, T)."""
    with torch.cuda.device_of(q):
        return launch_forward(q, r, k, v, scale, window or None, _tile("forward", q), _of_rows(mask, q))


@_forward.register_fake
def _(
    q: Tensor, r: Tensor, k: Tensor, v: Tensor, scale: float, window: int, mask: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    output, mean = (torch.empty_like(q, memory_format=torch.contiguous_format) for _ in range(2))
    lse, c = (q.new_empty(q.shape[:-1], dtype=torch.float32) for _ in range(2))
    return output, mean, lse, c


@torch.library.custom_op("parallax::plla_triton_backward", mutates_args=())
def _backward(
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
    window: int,
    mask: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of q, r, k and v."""
    with torch.cuda.device_of(q):
        seen, mask = window or None, _of_rows(mask, q)
        dq, dr, phi, mean_a = launch_backward_queries(
            grad, q, r, k, v, output, mean, lse, c, scale, seen, _tile("backward_queries", q), mask
        )
        dk, dv = launch_backward_keys(
            grad, q, r, k, v, lse, c, phi, mean_a, scale, seen, _tile("backward_keys", q), mask
        )
        return dq, dr, dk, dv


@_backward.register_fake
def _(grad: Tensor, q: Tensor, r: Tensor, k: Tensor, v: Tensor, *others: Any) -> tuple[Tensor, ...]:
    return tuple(torch.empty_like(t, memory_format=torch.contiguous_format) for t in (q, r, k, v))


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    *tensors, ctx.scale, ctx.window, mask = inputs
    ctx.save_for_backward(*tensors, *output, mask)


def _gradients(ctx: Any, grad: Tensor, *of_rows: Tensor | None) -> tuple[Tensor | None, ...]:
    *tensors, mask = ctx.saved_tensors
    return (*_backward(grad, *tensors, ctx.scale, ctx.window, mask), None, None, None)


_forward.register_autograd(_gradients, setup_context=_keep)


def _of_rows(mask: Tensor | None, q: Tensor) -> Tensor | None:
    return None if mask is None else mask.expand(q.shape[0], -1, -1, -1)


def _tile(kernel: str, q: Tensor) -> Tile:
    capability = torch.cuda.get_device_capability(q.device) if q.is_cuda else _INTERPRETED_AS
    return tiles_for(kernel, q.shape[-1], capability, q.element_size())[0]
