from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from parallax.config.models.base import ModelConfig


def build_norm(config: ModelConfig, eps: float) -> nn.Module:
    """The norm that an architecture uses, over the width of its residual stream."""
    if config.norm == "layer":
        return nn.LayerNorm(config.hidden_size, eps=eps)
    return RMSNorm(config.hidden_size, eps=eps)


class RMSNorm(nn.RMSNorm):
    """x / sqrt(mean(x^2) + eps) * w over the last dimension; for the backward only x is kept.

    Source: Zhang and Sennrich, "Root mean square layer normalization", 2019.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) -> (..., D)."""
        if torch.compiler.is_compiling():
            # A compiler chooses by itself what to keep, and fuses this with its neighbours.
            return super().forward(x)
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
