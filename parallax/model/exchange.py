from collections.abc import Callable, Sequence
from typing import Protocol

from torch import Tensor

Arrival = Callable[[], list[Tensor]]
"""Waits for what was sent and returns it, one tensor per local track."""


class Exchange(Protocol):
    """The only place where tracks meet: primitives that architectures write swap, fuse and merge from.

    Lists hold one tensor per local track, in the order of `local_tracks`. A distributed exchange keeps the
    same mathematics over ranks. It owns no parameters.
    """

    num_tracks: int
    """K."""
    local_tracks: Sequence[int]
    """The tracks computed here."""

    num_pieces: int
    """Pieces that a batch is cut into; one computes while what another sends travels; 1: it is not cut."""

    def enter(self, x: Tensor) -> Tensor:
        """Hands the embedding to the tracks. Forward: identity. Backward: the sum of all tracks' gradients."""
        ...

    def shift(self, outputs: Sequence[Tensor]) -> list[Tensor]:
        """Track k receives the output of track k-1 (mod K). Backward: the opposite shift."""
        ...

    def begin_shift(self, outputs: Sequence[Tensor]) -> Arrival:
        """Sends what `shift` sends and returns at once; what arrives is had by calling the result, once."""
        ...

    def reduce(self, outputs: Sequence[Tensor]) -> Tensor:
        """The sum over all tracks, the same everywhere. Backward: the gradient goes to every track as it is."""
        ...

    def begin_reduce(self, outputs: Sequence[Tensor]) -> Callable[[], Tensor]:
        """Sends what `reduce` sends and returns at once; the sum is had by calling the result, once."""
        ...


class LocalExchange:
    """All tracks on one device: nothing is sent."""

    def __init__(self, num_tracks: int) -> None:
        self.num_tracks = num_tracks
        self.num_pieces = 1
        self.local_tracks: Sequence[int] = range(num_tracks)

    def enter(self, x: Tensor) -> Tensor:
        """X itself; autograd sums the gradients of its uses."""
        return x

    def shift(self, outputs: Sequence[Tensor]) -> list[Tensor]:
        """[o_{K-1}, o_0, ..., o_{K-2}]."""
        return [outputs[-1], *outputs[:-1]]

    def begin_shift(self, outputs: Sequence[Tensor]) -> Arrival:
        """Nothing has to travel."""
        return lambda: self.shift(outputs)

    def reduce(self, outputs: Sequence[Tensor]) -> Tensor:
        """o_0 + o_1 + ... in this order, so that the rounding is the same in every run."""
        total = outputs[0]
        for output in outputs[1:]:
            total = total + output
        return total

    def begin_reduce(self, outputs: Sequence[Tensor]) -> Callable[[], Tensor]:
        """Nothing has to travel."""
        total = self.reduce(outputs)
        return lambda: total
