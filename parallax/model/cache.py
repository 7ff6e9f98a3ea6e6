from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor


class LayerCache(Protocol):
    """The part of a cache that one attention layer in one pass of one track sees."""

    def append(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Writes the new tokens' (B, G, T, E) and returns all (B, G, S, E), oldest first, in k's type."""
        ...


class ForwardCache(Protocol):
    """What a forward asks of a cache: `KVCache` grows, `StaticCacheView` has one shape for every step."""

    def begin(self, num_tokens: int) -> tuple[Tensor, Tensor | None]:
        """Opens a forward; positions (B or 1, T) of the new tokens, and a mask (B, 1, T, S) or None: causal."""
        ...

    def slots(self, track: int, loop: int) -> Sequence[LayerCache]:
        """The slots of one track's pass, one per layer."""
        ...

    def finish(self) -> None:
        """Closes the forward."""
        ...


@dataclass(frozen=True)
class CacheSnapshot:
    """A copy of a cache's content, to come back to."""

    lengths: tuple[int, ...]
    keys: Tensor
    values: Tensor


class KVCache:
    """Keys and values of the tokens read so far, for every (track, pass, layer), with a length per row.

    A token's place in a row is its position, so rows of unequal length sit side by side without padding on
    the left: what lies beyond a row's length is stale and masked, and later tokens overwrite it.

    Storage is two tensors (slots, B, G, S, E); slot = (track * R + pass) * L + layer.
    """

    def __init__(
        self,
        *,
        num_tracks: int,
        num_passes: int,
        num_layers: int,
        batch_size: int,
        num_kv_heads: int,
        capacity: int,
        head_dim: int,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        self.grid = (num_tracks, num_passes, num_layers)
        shape = (num_tracks * num_passes * num_layers, batch_size, num_kv_heads, capacity, head_dim)
        self.keys = torch.zeros(shape, device=device, dtype=dtype)
        self.values = torch.zeros(shape, device=device, dtype=dtype)
        self.capacity = capacity
        self.lengths = [0] * batch_size

    @property
    def num_bytes(self) -> int:
        """Memory of keys and values."""
        return 2 * self.keys.numel() * self.keys.element_size()

    def begin(self, num_tokens: int) -> tuple[Tensor, Tensor | None]:
        """Opens a forward of `num_tokens` further tokens per row.

        Returns:
            positions: (B or 1, T) of the new tokens; one row when all rows are equally long.
            mask: (B, 1, T, S) over the used part of the cache, or None when rows are equally long (causal).

        Raises:
            ValueError: the tokens do not fit; the caller decides what to drop.
        """
        end = max(self.lengths) + num_tokens
        if end > self.capacity:
            raise ValueError(f"{end} tokens do not fit a cache of {self.capacity}")
        self._end = end
        self._num_tokens = num_tokens
        device = self.keys.device
        new = torch.arange(num_tokens, device=device)
        if len(set(self.lengths)) == 1:
            self._positions = (new + self.lengths[0])[None]
            return self._positions, None
        self._positions = new[None] + torch.tensor(self.lengths, device=device)[:, None]
        seen = torch.arange(end, device=device) <= self._positions[:, None, :, None]
        return self._positions, seen

    def slots(self, track: int, loop: int) -> list["CacheSlot"]:
        """The slots of one track's pass, one per layer."""
        _, num_passes, num_layers = self.grid
        first = (track * num_passes + loop) * num_layers
        return [CacheSlot(self, first + layer) for layer in range(num_layers)]

    def finish(self) -> None:
        """Closes the forward: every row is now longer by its tokens. `truncate` takes padding back."""
        self.lengths = [length + self._num_tokens for length in self.lengths]

    def advance(self, rows: Sequence[int]) -> None:
        """Counts one token more in each of the given rows; a static view wrote it."""
        for row in rows:
            self.lengths[row] += 1

    def truncate(self, lengths: Sequence[int]) -> None:
        """Forgets everything beyond the given length of each row.

        Raises:
            ValueError: a length below zero or beyond what the row holds.
        """
        if any(not 0 <= new <= old for new, old in zip(lengths, self.lengths, strict=True)):
            raise ValueError(f"cannot truncate rows of {self.lengths} tokens to {list(lengths)}")
        self.lengths = list(lengths)

    def select(self, rows: Sequence[int]) -> None:
        """Keeps only the given rows, in the given order."""
        index = torch.tensor(rows, device=self.keys.device)
        self.keys, self.values = self.keys[:, index], self.values[:, index]
        self.lengths = [self.lengths[row] for row in rows]

    def replace(self, rows: Sequence[int], source: "KVCache") -> None:
        """Puts row i of `source`, which may have less capacity, in the place of row `rows[i]`."""
        used = max(source.lengths)
        self.keys[:, rows, :, :used] = source.keys[..., :used, :]
        self.values[:, rows, :, :used] = source.values[..., :used, :]
        for row, length in zip(rows, source.lengths, strict=True):
            self.lengths[row] = length

    def snapshot(self) -> CacheSnapshot:
        """A copy of everything the rows hold."""
        used = max(self.lengths)
        return CacheSnapshot(
            tuple(self.lengths), self.keys[..., :used, :].clone(), self.values[..., :used, :].clone()
        )

    def restore(self, snapshot: CacheSnapshot) -> None:
        """Goes back to a snapshot, whatever was written or truncated since."""
        used = snapshot.keys.shape[-2]
        self.keys[..., :used, :] = snapshot.keys
        self.values[..., :used, :] = snapshot.values
        self.lengths = list(snapshot.lengths)

    def _write(self, slot: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        keys, values = self.keys[slot], self.values[slot]
        if self._positions.shape[0] == 1:
            start = self._end - self._num_tokens
            keys[:, :, start : self._end] = k
            values[:, :, start : self._end] = v
        else:
            rows = torch.arange(k.shape[0], device=k.device)[:, None]
            keys[rows, :, self._positions] = k.transpose(1, 2).to(keys.dtype)
            values[rows, :, self._positions] = v.transpose(1, 2).to(values.dtype)
        return keys[:, :, : self._end], values[:, :, : self._end]


@dataclass(frozen=True)
class CacheSlot:
    """The part of a cache that one attention layer in one pass of one track sees."""

    cache: KVCache
    index: int

    def append(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Writes the new tokens' (B, G, T, E) and returns all (B, G, S, E), oldest first, in k's type."""
        keys, values = self.cache._write(self.index, k, v)
        return keys.to(k.dtype), values.to(v.dtype)
