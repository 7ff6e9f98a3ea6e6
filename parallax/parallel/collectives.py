"""Collectives that autograd passes through; each takes its group and returns a new tensor."""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def copy_to_group(x: Tensor, group: dist.ProcessGroup) -> Tensor:
    """Forward: identity. Backward: the sum of all ranks' gradients (Megatron's f)."""
    result: Tensor = _CopyToGroup.apply(x, group)  # type: ignore[no-untyped-call]
    return result


def sum_over_group(x: Tensor, group: dist.ProcessGroup) -> Tensor:
    """Forward: the sum over all ranks, everywhere. Backward: identity (Megatron's g)."""
    result: Tensor = _SumOverGroup.apply(x, group)  # type: ignore[no-untyped-call]
    return result


def shift_ring(x: Tensor, group: dist.ProcessGroup) -> Tensor:
    """Forward: rank r receives x of rank r - 1, cyclically. Backward: of rank r + 1."""
    result: Tensor = _ShiftRing.apply(x, group, 1)  # type: ignore[no-untyped-call]
    return result


class _CopyToGroup(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, group: dist.ProcessGroup) -> Tensor:
        ctx.group = group
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return _summed(grad, ctx.group), None


class _SumOverGroup(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, group: dist.ProcessGroup) -> Tensor:
        return _summed(x, group)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return grad, None


class _ShiftRing(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, group: dist.ProcessGroup, step: int) -> Tensor:
        ctx.group, ctx.step = group, step
        return _shifted(x, group, step)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        return _shifted(grad, ctx.group, -ctx.step), None, None


def _summed(x: Tensor, group: dist.ProcessGroup) -> Tensor:
    total = x.contiguous().clone()
    dist.all_reduce(total, group=group)
    return total


def _shifted(x: Tensor, group: dist.ProcessGroup, step: int) -> Tensor:
    """Sends x to the rank `step` further and returns what comes from as far behind: nothing else travels."""
    size, rank = group.size(), dist.get_rank(group)
    x = x.contiguous()
    received = torch.empty_like(x)
    sent, taken = [0] * size, [0] * size
    sent[(rank + step) % size] = taken[(rank - step) % size] = x.numel()
    dist.all_to_all_single(received.view(-1), x.view(-1), taken, sent, group=group)
    return received
