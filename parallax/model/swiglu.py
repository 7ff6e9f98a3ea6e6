from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from parallax.config.models.base import aligned_width
from parallax.model.linear import Linear, linear
from parallax.model.precision import product_dtype


class SwiGLU(nn.Module):
    """W3(silu(W1 h) * (W2 h)), with W1 and W2 as the two halves of one matrix.

    Eager training keeps only h and the two products for the backward and makes the rest again there. A compiler
    gets the plain operations: it chooses by itself what to keep, and fuses what lies between the products.

    Source: Shazeer, "GLU Variants Improve Transformer", 2020.
    """

    def __init__(self, hidden_size: int, intermediate_size: int) -> None:
        super().__init__()
        self.gate_up = GateUp(hidden_size, intermediate_size)
        self.down = GatedDown(intermediate_size, hidden_size)

    def forward(self, hidden: Tensor) -> Tensor:
        """(B, T, D) -> (B, T, D)."""
        return self.down(self.gate_up(hidden))


class GateUp(Linear):
    """W1 h and W2 h of a SwiGLU side by side, each filled up with zeros to a width that products are fast at.

    A matrix product of a width like 1365 or 2730 runs at 0.6 times the rate of its aligned neighbour, on CPUs
    and on tensor cores alike (`docs/EXPERIMENTS.md`). The parameter keeps its own size; the zeros exist in
    the product only, and silu(0) * 0 = 0 meets a zero column in `GatedDown`. Copying the weight costs about a
    fiftieth of what the product gains.
    """

    def __init__(self, hidden_size: int, intermediate_size: int) -> None:
        super().__init__(hidden_size, 2 * intermediate_size)
        self.padding = aligned_width(intermediate_size) - intermediate_size

    def forward(self, hidden: Tensor) -> Tensor:
        """(B, T, D) -> (B, T, 2 J), J >= I the aligned width; columns I .. J - 1 of each half are 0."""
        if not self.padding or _is_single_token(hidden):
            return linear(hidden, self.weight)
        dtype = product_dtype(hidden)
        if torch.compiler.is_compiling():
            return F.linear(hidden, _filled(self.weight, self.padding, dtype))
        with torch.autocast(hidden.device.type, enabled=False):
            output: Tensor = _GateUp.apply(hidden.to(dtype), self.weight, self.padding)  # type: ignore[no-untyped-call]
        return output


class _GateUp(torch.autograd.Function):
    """x W^T with each half of W's rows filled up with zeros; the filled copy is not kept for the backward."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, padding: int) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.padding = padding
        return F.linear(x, _filled(weight, padding, x.dtype))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor | None, None]:
        x, weight = ctx.saved_tensors
        grad_x = grad @ _filled(weight, ctx.padding, x.dtype)
        if not ctx.needs_input_grad[1]:
            return grad_x, None, None
        filled = grad.flatten(0, -2).T @ x.flatten(0, -2)
        halves = filled.view(2, -1, x.shape[-1])[:, : weight.shape[0] // 2]
        return grad_x, halves.flatten(0, 1).to(weight.dtype), None


def _filled(weight: Tensor, padding: int, dtype: torch.dtype) -> Tensor:
    """(2 I, D) -> (2 J, D) in the type of the products."""
    halves = weight.to(dtype).view(2, -1, weight.shape[1])
    return F.pad(halves, (0, 0, 0, padding)).flatten(0, 1)


class GatedDown(Linear):
    """W3(silu(gate) * up); of what lies between, nothing is kept for the backward: it is made again there."""

    def __init__(self, intermediate_size: int, hidden_size: int) -> None:
        super().__init__(intermediate_size, hidden_size)

    def forward(self, gate_up: Tensor) -> Tensor:
        """(B, T, 2 J) -> (B, T, D), J >= I as `GateUp` gives it."""
        if torch.compiler.is_compiling():
            gate, up = gate_up.chunk(2, dim=-1)
            return linear(F.silu(gate) * up, _widened(self.weight, gate.shape[-1]))
        # Under autocast the first products came in its type, and this one goes on in it.
        with torch.autocast(gate_up.device.type, enabled=False):
            output: Tensor = _GatedDown.apply(gate_up, self.weight)  # type: ignore[no-untyped-call]
        return output


class _GatedDown(torch.autograd.Function):
    """o = a W^T with a = silu(g) * u. Backward, with s = sigmoid(g) and d = do W:

        dW = do^T a       du = d silu(g)       dg = d u s (1 + g (1 - s))

    Only g and u are kept, and dg and du are written into one tensor.
    """

    @staticmethod
    def forward(ctx: Any, gate_up: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(gate_up, weight)
        gate, up = gate_up.chunk(2, dim=-1)
        return F.linear(F.silu(gate).mul_(up), _widened(weight.to(gate.dtype), gate.shape[-1]))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor | None]:
        gate_up, weight = ctx.saved_tensors
        gate, up = gate_up.chunk(2, dim=-1)
        width = gate.shape[-1]
        between = grad @ _widened(weight.to(grad.dtype), width)
        silu = F.silu(gate)
        grads = torch.empty_like(gate_up)
        grads[..., width:] = between * silu
        grads[..., :width] = torch.ops.aten.silu_backward(between.mul_(up), gate)
        if not ctx.needs_input_grad[1]:
            return grads, None
        activated = silu.mul_(up)
        grad_weight = grad.flatten(0, -2).T @ activated.flatten(0, -2)
        return grads, grad_weight[:, : weight.shape[1]].to(weight.dtype)


def _widened(weight: Tensor, width: int) -> Tensor:
    """(D, I) with zero columns up to `width`. Padding by nothing would still copy."""
    return F.pad(weight, (0, width - weight.shape[1])) if width > weight.shape[1] else weight


def _is_single_token(hidden: Tensor) -> bool:
    """Decoding one token a row moves every weight once: there a copy would cost more than the product."""
    return hidden.shape[-2] == 1
