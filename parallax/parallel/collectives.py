"""Collectives that autograd passes through; each takes its group and returns a new tensor."""

from collections.abc import Callable
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


def send_round_ring(x: Tensor, group: dist.ProcessGroup) -> Callable[[], Tensor]:
    """X departs for the next rank, cyclically; the result, called once, waits for what comes from the one before.

    Backward the other way round: the gradient departs where the result was called, and is waited for where x
    departed. What autograd does in between, in the reverse order of the forward, hides the journey.
    """
    journey = _Journey(group)
    departed: Tensor = _Depart.apply(x, journey)  # type: ignore[no-untyped-call]

    def arrive() -> Tensor:
        arrived: Tensor = _Arrive.apply(departed, journey)  # type: ignore[no-untyped-call]
        return arrived

    return arrive


class _Journey:
    """A tensor that is under way to the next rank, and its gradient that comes back."""

    def __init__(self, group: dist.ProcessGroup) -> None:
        self._group = group
        self._under_way: tuple[Tensor, dist.Work] | None = None

    def begin(self, x: Tensor, step: int) -> Tensor:
        """The memory that what comes from `step` ranks behind will be in, once it is awaited."""
        received, work = _begin_shift(x, self._group, step)
        self._under_way = received, work
        return received

    def finish(self) -> Tensor:
        """What has arrived."""
        assert self._under_way is not None
        received, work = self._under_way
        work.wait()
        self._under_way = None
        return received


class _Depart(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, journey: _Journey) -> Tensor:
        ctx.journey = journey
        journey.begin(x, 1)
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return ctx.journey.finish(), None


class _Arrive(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, departed: Tensor, journey: _Journey) -> Tensor:
        ctx.journey = journey
        return journey.finish()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        # Its only reader is _Depart, which waits for it.
        return ctx.journey.begin(grad, -1), None


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


def _summed(x: Tensor, group: dist.ProcessGroup) -> Tensor:
    total = x.contiguous().clone()
    dist.all_reduce(total, group=group)
    return total


def _begin_shift(x: Tensor, group: dist.ProcessGroup, step: int) -> tuple[Tensor, dist.Work]:
    """Sends x to the rank `step` further, and receives from as far behind: nothing else travels."""
    size, rank = group.size(), dist.get_rank(group)
    x = x.contiguous()
    received = torch.empty_like(x)
    sent, taken = [0] * size, [0] * size
    sent[(rank + step) % size] = taken[(rank - step) % size] = x.numel()
    work = dist.all_to_all_single(received.view(-1), x.view(-1), taken, sent, group=group, async_op=True)
    return received, work
