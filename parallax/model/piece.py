from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from parallax.model.context import BlockContext
from parallax.model.exchange import Arrival


@dataclass
class Piece:
    """Some rows of a batch on their way through the tracks."""

    x: Tensor
    """What every track entered with."""
    context: BlockContext
    noise: Sequence[Sequence[Tensor | None]]
    """Keys of noise by local track and pass, each (L, 2, B, 2)."""
    states: list[Tensor]
    """What the local tracks gave last."""
    arrival: Arrival | None = None
    """Of what the tracks read next, while it is on its way."""
    merged: Callable[[], Tensor] | None = None
    """The sum over the tracks, while it is on its way."""
