from dataclasses import dataclass, replace

from torch import Tensor


@dataclass(frozen=True)
class BlockContext:
    """What a block needs beside its input; made once per forward and shared by all blocks."""

    positions: Tensor
    """(B or 1, T) places of the tokens in their rows."""
    cos: Tensor | None = None
    """(B or 1, 1, T, E/2) cosines of the positions; None: no rotary positions that all blocks share."""
    sin: Tensor | None = None
    """(B or 1, 1, T, E/2) sines of the positions."""
    mask: Tensor | None = None
    """(B, 1, T, S) boolean, true where a query may look; None: causal."""
    aside: Tensor | None = None
    """(B, N, D) states that are looked at besides, and that no block changes; in the mask behind the others."""
    noise: Tensor | None = None
    """(2, B, 2) keys of this block's noise in this pass (`block_keys`), attention first; None: there is none.
    It alone is each block's own."""

    def chunk(self, count: int, num_rows: int) -> list["BlockContext"]:
        """The contexts of so many pieces of a batch of B rows; what all rows share is in each."""
        if count == 1:
            return [self]
        parts = {name: value for name in ("mask", "aside") if (value := getattr(self, name)) is not None}
        cut = {k: v.chunk(count) if len(v) == num_rows else (v,) * count for k, v in parts.items()}
        return [replace(self, **{name: values[piece] for name, values in cut.items()}) for piece in range(count)]
