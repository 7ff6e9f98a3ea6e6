import torch
from torch import Tensor

from parallax.attention.plla.chunked import chunked_plla
from parallax.attention.plla.decode import parallax_decode as batched_decode
from parallax.attention.plla.reference import parallax_reference


class EagerPlla:
    """The definition written out: the oracle of the other backends, and what takes a mask."""

    name = "eager"

    def unavailable(self, device: torch.device) -> str | None:
        """Runs everywhere."""
        return None

    def attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        """See `AttentionBackend.attend`; q has 2 H heads, the directions r and behind them the queries."""
        directions, queries = q.chunk(2, dim=1)
        q, r, k, v = (t.transpose(1, 2) for t in (queries, directions, k, v))
        return parallax_reference(q, r, k, v, mask=mask).transpose(1, 2)

    def compute(self, q: Tensor, r: Tensor, k: Tensor, v: Tensor, scale: float, window: int | None) -> Tensor:
        """See `PllaBackend.compute`."""
        q, r, k, v = (t.transpose(1, 2) for t in (q, r, k, v))
        return parallax_reference(q, r, k, v, scale, window=window).transpose(1, 2)

    def decode(self, q: Tensor, r: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
        """See `PllaBackend.decode`."""
        return parallax_reference(q, r, k, v, scale)


class ChunkedPlla:
    """Batched products over chunks of queries, memory linear in the length; with a mask, the definition."""

    name = "chunked"

    def __init__(self) -> None:
        self._eager = EagerPlla()

    def unavailable(self, device: torch.device) -> str | None:
        """Made for the CPU; on a GPU it is what there is without kernels of its own, and has not run on one."""
        return None

    def attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        """See `AttentionBackend.attend`; q has 2 H heads, the directions r and behind them the queries."""
        if mask is not None or q.shape[2] == 1:
            return self._eager.attend(q, k, v, mask)
        directions, queries = q.chunk(2, dim=1)
        return chunked_plla(queries, directions, k, v, q.shape[-1] ** -0.5)

    def compute(self, q: Tensor, r: Tensor, k: Tensor, v: Tensor, scale: float, window: int | None) -> Tensor:
        """See `PllaBackend.compute`."""
        return chunked_plla(q, r, k, v, scale, window)

    def decode(self, q: Tensor, r: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
        """See `PllaBackend.decode`."""
        return batched_decode(q, r, k, v, scale)
