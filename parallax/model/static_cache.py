from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


class StaticCacheView:
    """A KV cache's storage seen by a forward of one token per row whose shapes never change.

    Where `KVCache` hands out the used part of its storage, this hands out all of it with a mask, and the
    positions are a tensor instead of Python numbers. A compiled forward therefore serves every step.

    Args:
        keys: per slot, (B, G, S, E) of a `KVCache`'s storage; written in place. One tensor a slot, because a
            compiler copies the whole of a tensor when a part of it is written through a view.
        values: likewise.
        positions: (B,) the place of each row's new token.
        grid: (tracks, passes, layers), whose product is the number of slots.
    """

    def __init__(
        self, keys: Sequence[Tensor], values: Sequence[Tensor], positions: Tensor, grid: tuple[int, int, int]
    ) -> None:
        self.keys = keys
        self.values = values
        self.positions = positions
        self._grid = grid

    def begin(self, num_tokens: int) -> tuple[Tensor, Tensor]:
        """See `KVCache.begin`; the mask is (B, 1, 1, S).

        Raises:
            ValueError: more than one token per row.
        """
        if num_tokens != 1:
            raise ValueError(f"a static cache takes one token per row, not {num_tokens}")
        places = torch.arange(self.keys[0].shape[2], device=self.positions.device)
        return self.positions[:, None], places <= self.positions[:, None, None, None]

    def slots(self, track: int, loop: int) -> list["StaticCacheSlot"]:
        """See `KVCache.slots`."""
        _, num_passes, num_layers = self._grid
        first = (track * num_passes + loop) * num_layers
        return [StaticCacheSlot(self, first + layer) for layer in range(num_layers)]

    def finish(self) -> None:
        """Nothing to count: whoever owns the storage knows the lengths."""


@dataclass(frozen=True)
class StaticCacheSlot:
    """The part of a static cache that one attention layer in one pass of one track sees."""

    view: StaticCacheView
    index: int

    def append(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Writes the new tokens' (B, G, 1, E) and returns all (B, G, S, E), of which the mask hides the rest."""
        view = self.view
        keys, values = view.keys[self.index], view.values[self.index]
        rows = torch.arange(k.shape[0], device=k.device)
        keys[rows, :, view.positions] = k[:, :, 0].to(keys.dtype)
        values[rows, :, view.positions] = v[:, :, 0].to(values.dtype)
        return keys.to(k.dtype), values.to(v.dtype)
