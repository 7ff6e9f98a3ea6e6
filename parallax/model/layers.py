from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from parallax.config.model import aligned_width


class RMSNorm(nn.RMSNorm):
    """x / sqrt(mean(x^2) + eps) * w over the last dimension; for the backward only x is kept.

    Source: Zhang and Sennrich, "Root mean square layer normalization", 2019.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) -> (..., D)."""
        output: Tensor = _RMSNorm.apply(x, self.weight, self.eps)  # type: ignore[no-untyped-call]
        return output


class _RMSNorm(torch.autograd.Function):
    """With r = 1 / sqrt(mean(x^2) + eps) and n = x r:  dw = sum of do n,  dx = r (do w - n mean(do w n))."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.eps = eps
        return F.rms_norm(x, weight.shape, weight, eps)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor | None, None]:
        x, weight = ctx.saved_tensors
        wide = x if x.dtype == torch.float64 else x.float()
        scale = torch.rsqrt(wide.square().mean(-1, keepdim=True) + ctx.eps)
        normed = wide * scale
        # A frozen weight's gradient would be thrown away.
        grad_weight = (grad * normed).flatten(0, -2).sum(0).to(weight.dtype) if ctx.needs_input_grad[1] else None
        grad_normed = grad * weight
        grad_x = (grad_normed - normed * (grad_normed * normed).mean(-1, keepdim=True)) * scale
        return grad_x.to(x.dtype), grad_weight, None


class SwiGLU(nn.Module):
    """W3(silu(W1 h) * (W2 h)), with W1 and W2 as the two halves of one matrix.

    Source: Shazeer, "GLU Variants Improve Transformer", 2020.
    """

    def __init__(self, hidden_size: int, intermediate_size: int) -> None:
        super().__init__()
        self.gate_up = GateUp(hidden_size, intermediate_size)
        self.down = GatedDown(intermediate_size, hidden_size)

    def forward(self, hidden: Tensor) -> Tensor:
        """(B, T, D) -> (B, T, D)."""
        return self.down(self.gate_up(hidden))


class GateUp(nn.Linear):
    """W1 h and W2 h of a SwiGLU side by side, each filled up with zeros to a width that products are fast at.

    A matrix product of a width like 1365 or 2730 runs at 0.6 times the rate of its aligned neighbour, on CPUs
    and on tensor cores alike (`docs/EXPERIMENTS.md`). The parameter keeps its own size; the zeros exist in
    the product only, and silu(0) * 0 = 0 meets a zero column in `GatedDown`. Copying the weight costs about a
    fiftieth of what the product gains.
    """

    def __init__(self, hidden_size: int, intermediate_size: int) -> None:
        super().__init__(hidden_size, 2 * intermediate_size, bias=False)
        self.padding = aligned_width(intermediate_size) - intermediate_size

    def forward(self, hidden: Tensor) -> Tensor:
        """(B, T, D) -> (B, T, 2 J), J >= I the aligned width; columns I .. J - 1 of each half are 0."""
        if not self.padding or _is_single_token(hidden):
            return F.linear(hidden, self.weight)
        dtype = product_dtype(hidden)
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


def product_dtype(hidden: Tensor) -> torch.dtype:
    """Autocast's type where it is on, else the hidden state's; autocast leaves fp64 alone."""
    kind = hidden.device.type
    if hidden.dtype != torch.float64 and torch.is_autocast_enabled(kind):
        return torch.get_autocast_dtype(kind)
    return hidden.dtype


class GatedDown(nn.Linear):
    """W3(silu(gate) * up); of what lies between, nothing is kept for the backward: it is made again there."""

    def __init__(self, intermediate_size: int, hidden_size: int) -> None:
        super().__init__(intermediate_size, hidden_size, bias=False)

    def forward(self, gate_up: Tensor) -> Tensor:
        """(B, T, 2 J) -> (B, T, D), J >= I as `GateUp` gives it."""
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


def rotary_angles(positions: Tensor, head_dim: int, theta: float, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Cosine and sine of position * theta^(-2i/E), i = 0 .. E/2 - 1.

    They are computed from the positions in every forward instead of being kept: the cost is a thousandth of
    a block's, and a model built on the meta device has no buffers to restore.

    Args:
        positions: (B or 1, T) integer positions.
        head_dim: E.
        theta: base of the frequencies.
        dtype: type of the result; the angles themselves are fp64 for fp64 and fp32 otherwise.

    Returns:
        Two tensors (B or 1, 1, T, E/2). Source: Su et al., "RoFormer", 2021.
    """
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    exponents = torch.arange(0, head_dim, 2, device=positions.device, dtype=wide) / head_dim
    angles = positions[:, None, :, None].to(wide) * theta**-exponents
    return angles.cos().to(dtype), angles.sin().to(dtype)


def apply_rotary(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turns each pair (x_i, x_{i+E/2}) of a head by its position's angle.

    Args:
        x: (B, H, T, E).
        cos: (B or 1, 1, T, E/2).
        sin: (B or 1, 1, T, E/2).

    Returns:
        (B, H, T, E), of x's type. The halves are split, not interleaved, as in Llama's published weights.
    """
    first, second = x.chunk(2, dim=-1)
    turned = torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)
    return turned.to(x.dtype)
