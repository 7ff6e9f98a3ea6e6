"""Collectives that autograd passes through; each takes its group and returns a new tensor."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Protocol, cast

import torch
import torch.distributed as dist
from torch import Tensor

_PARCEL_BYTES = 256 * 1024


def copy_to_group(x: Tensor, group: dist.ProcessGroup) -> Tensor:
    """Forward: identity. Backward: the sum of all ranks' gradients (Megatron's f).

    The gradients depart as soon as they are there, and are waited for only when autograd has nothing left to do
    that came later in the forward.
    """
    return _set_out(x, _Journey(None, partial(_begin_sum, group=group)))()


def sum_over_group(x: Tensor, group: dist.ProcessGroup) -> Tensor:
    """Forward: the sum over all ranks, everywhere. Backward: identity (Megatron's g)."""
    return begin_sum_over_group(x, group)()


def begin_sum_over_group(x: Tensor, group: dist.ProcessGroup) -> Callable[[], Tensor]:
    """`sum_over_group` under way; the result, called once, waits for it."""
    return _set_out(x, _Journey(partial(_begin_sum, group=group), None))


def send_round_ring(x: Tensor, group: dist.ProcessGroup) -> Callable[[], Tensor]:
    """X departs for the next rank, cyclically; the result, called once, waits for what comes from the one before.

    Backward the other way round: the gradient departs where the result was called, and is waited for where x
    departed. What autograd does in between, in the reverse order of the forward, hides the journey.
    """
    there, back = (partial(_begin_shift, group=group, step=step) for step in (1, -1))
    return _set_out(x, _Journey(there, back))


class _Awaited(Protocol):
    def wait(self) -> Any: ...


_Begin = Callable[[Tensor], tuple[Tensor, _Awaited]]
"""Starts a collective; the memory that its result will be in, once the work is awaited."""


class _Journey:
    """A tensor that other ranks are told, and its gradient that comes back: each by a collective, or none."""

    def __init__(self, there: _Begin | None, back: _Begin | None) -> None:
        self.there, self.back = there, back
        self._under_way: tuple[Tensor, _Awaited] | None = None

    def begin(self, collective: _Begin | None, x: Tensor) -> Tensor:
        """The memory of what will arrive, which is x itself where nothing is told."""
        if collective is None:
            return x
        self._under_way = collective(x)
        return self._under_way[0]

    def finish(self, collective: _Begin | None, x: Tensor) -> Tensor:
        """What has arrived; x where nothing was told."""
        if collective is None:
            return x
        assert self._under_way is not None
        arrived, work = self._under_way
        work.wait()
        self._under_way = None
        return arrived


def _set_out(x: Tensor, journey: _Journey) -> Callable[[], Tensor]:
    departed: Tensor = _Depart.apply(x, journey)  # type: ignore[no-untyped-call]

    def arrive() -> Tensor:
        arrived: Tensor = _Arrive.apply(departed, journey)  # type: ignore[no-untyped-call]
        return arrived

    return arrive


class _Depart(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, journey: _Journey) -> Tensor:
        ctx.journey = journey
        journey.begin(journey.there, x)
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return ctx.journey.finish(ctx.journey.back, grad), None


class _Arrive(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, departed: Tensor, journey: _Journey) -> Tensor:
        ctx.journey = journey
        arrived = journey.finish(journey.there, departed)
        return arrived.view_as(arrived) if arrived is departed else arrived

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        # Its only reader is _Depart, which waits for it.
        return ctx.journey.begin(ctx.journey.back, grad), None


def _begin_sum(x: Tensor, group: dist.ProcessGroup) -> tuple[Tensor, dist.Work]:
    total = x.contiguous().clone()
    return total, dist.all_reduce(total, group=group, async_op=True)


def _begin_shift(x: Tensor, group: dist.ProcessGroup, step: int) -> tuple[Tensor, _Awaited]:
    """Sends x to the rank `step` further, and receives from as far behind: nothing else travels."""
    size, rank = group.size(), dist.get_rank(group)
    x = x.contiguous()
    received = torch.empty_like(x)
    count = count_parcels(x.numel() * x.element_size(), x.device)
    parcels = zip(x.view(-1).tensor_split(count), received.view(-1).tensor_split(count), strict=True)
    works = []
    for leaving, arriving in parcels:
        sent, taken = [0] * size, [0] * size
        sent[(rank + step) % size] = taken[(rank - step) % size] = leaving.numel()
        work = dist.all_to_all_single(arriving, leaving, taken, sent, group=group, async_op=True)
        works.append(cast(dist.Work, work))
    return received, _Works(works)


def count_parcels(num_bytes: int, device: torch.device) -> int:
    """Collectives that a shift of so many bytes is cut into.

    gloo sends once the receiver has said that it is ready, over the connection that its own parcel travels on.
    Two ranks that exchange one large tensor thus send one after the other, in twice the time of a link that
    takes both directions at once; of several parcels only the first word waits.
    """
    return max(1, math.ceil(num_bytes / _PARCEL_BYTES)) if device.type == "cpu" else 1


class _Works:
    """Several collectives, waited for as one."""

    def __init__(self, works: Sequence[dist.Work]) -> None:
        self._works = works

    def wait(self) -> None:
        for work in self._works:
            work.wait()
