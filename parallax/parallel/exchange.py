from collections.abc import Callable, Sequence

import torch
import torch.distributed as dist
from torch import Tensor

from parallax.model.exchange import Arrival
from parallax.parallel.collectives import begin_sum_over_group, copy_to_group, send_round_ring


class GroupExchange:
    """The exchange of tracks spread evenly over the ranks of a group: K / K' neighbouring tracks on each of K'.

    See `Exchange` for what its primitives mean.

    Args:
        num_tracks: K, a multiple of the group's size.
        group: the ranks along the track axis, in the order of their tracks.
        num_pieces: see `Exchange`.
    """

    def __init__(self, num_tracks: int, group: dist.ProcessGroup, num_pieces: int = 1) -> None:
        per_rank = num_tracks // group.size()
        first = dist.get_rank(group) * per_rank
        self.num_tracks = num_tracks
        self.num_pieces = num_pieces
        self.local_tracks: Sequence[int] = range(first, first + per_rank)
        self._group = group

    def enter(self, x: Tensor) -> Tensor:
        """Backward: one all-reduce of (B, T, D), also where the embedding is frozen.

        With other tracks frozen than those of other ranks, a rank might have no gradient to pass on, and the
        others would wait for it: so every rank's graph begins here.
        """
        if torch.is_grad_enabled() and not x.requires_grad:
            x = x.detach().requires_grad_()
        return copy_to_group(x, self._group)

    def shift(self, outputs: Sequence[Tensor]) -> list[Tensor]:
        """Forward and backward: the one tensor that leaves a rank is sent to its neighbour."""
        return self.begin_shift(outputs)()

    def begin_shift(self, outputs: Sequence[Tensor]) -> Arrival:
        """The tensor that leaves travels while other work is done, in both directions."""
        arrival = send_round_ring(outputs[-1], self._group)
        return lambda: [arrival(), *outputs[:-1]]

    def reduce(self, outputs: Sequence[Tensor]) -> Tensor:
        """Forward: one all-reduce of (B, T, D)."""
        return self.begin_reduce(outputs)()

    def begin_reduce(self, outputs: Sequence[Tensor]) -> Callable[[], Tensor]:
        """The all-reduce travels while other work is done."""
        total = outputs[0]
        for output in outputs[1:]:
            total = total + output
        return begin_sum_over_group(total, self._group)
