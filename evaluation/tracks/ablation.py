from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from parallax.config.models.dual_track import DualTrackConfig
from parallax.model.dual_track import DualTrack
from parallax.model.exchange import Arrival, LocalExchange


@dataclass(frozen=True)
class Ablation:
    """Something taken out of the model where tracks meet."""

    name: str
    track: int | None = None
    """Whose outputs are replaced; None: nobody's."""
    replacement: Literal["zero", "mean"] = "zero"
    """By nothing, or by their own mean over the measured tokens of the intact model, pass by pass."""
    everywhere: bool = False
    """Whether what the track sends to its neighbour is replaced too, not only what it adds to the fuse."""
    unswapped: frozenset[int] = frozenset()
    """Passes, from 1, after which every track goes on with its own output instead of its neighbour's."""


def list_ablations(config: DualTrackConfig) -> list[Ablation]:
    """All that mean something for a model: its tracks, and its swaps one at a time and together."""
    found = []
    swaps = range(1, config.num_loops) if config.use_swap and config.num_tracks > 1 else range(0)
    for k in range(config.num_tracks):
        found += [
            Ablation(f"track {k} zero at the fuse", k),
            Ablation(f"track {k} mean at the fuse", k, "mean"),
        ]
        if swaps:
            found += [
                Ablation(f"track {k} zero everywhere", k, everywhere=True),
                Ablation(f"track {k} mean everywhere", k, "mean", everywhere=True),
            ]
    found += [Ablation(f"no swap after pass {loop}", unswapped=frozenset({loop})) for loop in swaps]
    if len(swaps) > 1:
        found.append(Ablation("no swap at all", unswapped=frozenset(swaps)))
    return found


class AblatedExchange(LocalExchange):
    """The exchange of all tracks on one device, with something taken out.

    Args:
        num_tracks: K.
        ablation: what to take out.
        means: (K, R, D) mean output of each track in each pass; only read for replacements by the mean.
    """

    def __init__(self, num_tracks: int, ablation: Ablation, means: Tensor) -> None:
        super().__init__(num_tracks)
        self._ablation = ablation
        self._means = means
        self._loop = 0

    def enter(self, x: Tensor) -> Tensor:
        """X itself; a forward begins."""
        self._loop = 0
        return x

    def begin_shift(self, outputs: Sequence[Tensor]) -> Arrival:
        """What each track reads next: its neighbour's output, or its own where the swap is taken out."""
        sent = self._replaced(outputs, self._loop) if self._ablation.everywhere else list(outputs)
        self._loop += 1
        arrived = sent if self._loop in self._ablation.unswapped else self.shift(sent)
        return lambda: arrived

    def reduce(self, outputs: Sequence[Tensor]) -> Tensor:
        """The sum, one of its terms replaced."""
        return super().reduce(self._replaced(outputs, -1))

    def _replaced(self, outputs: Sequence[Tensor], loop: int) -> list[Tensor]:
        replaced, k = list(outputs), self._ablation.track
        if k is not None:
            mean = self._means[k, loop].to(outputs[k].dtype)
            is_mean = self._ablation.replacement == "mean"
            replaced[k] = mean.expand_as(outputs[k]) if is_mean else torch.zeros_like(outputs[k])
        return replaced


@contextmanager
def ablated(model: DualTrack, ablation: Ablation, means: Tensor) -> Iterator[None]:
    """The model without something for the block; afterwards it has the exchange that it had."""
    whole = model.exchange
    model.exchange = AblatedExchange(model.config.num_tracks, ablation, means)
    try:
        yield
    finally:
        model.exchange = whole
