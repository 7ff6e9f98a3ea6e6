import torch
from torch import Tensor

from parallax.attention.plla.chunked import chunked_plla
from parallax.attention.plla.decode import decode_row
from parallax.attention.plla.reference import parallax_reference


class EagerPlla:
    """The definition written out: the oracle of the other backends."""

    name = "eager"

    def unavailable(self, device: torch.device) -> str | None:
        """Runs everywhere."""
        return None

    def attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        """See `AttentionBackend.attend`; q has 2 H heads, the directions r and behind them the queries."""
        directions, queries = q.chunk(2, dim=1)
        return self.compute(queries, directions, k, v, q.shape[-1] ** -0.5, mask=mask)

    def compute(
        self,
        q: Tensor,
        r: Tensor,
        k: Tensor,
        v: Tensor,
        scale: float,
        window: int | None = None,
        mask: Tensor | None = None,
    ) -> Tensor:
        """See `PllaBackend.compute`."""
        q, r, k, v = (t.transpose(1, 2) for t in (q, r, k, v))
        return parallax_reference(q, r, k, v, scale, window=window, mask=mask).transpose(1, 2)

    def decode(self, q: Tensor, r: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
        """See `PllaBackend.decode`."""
        return parallax_reference(q, r, k, v, scale)


class ChunkedPlla:
    """Batched products over chunks of queries, memory linear in the length; one query has a way of its own."""

    name = "chunked"

    def unavailable(self, device: torch.device) -> str | None:
        """Made for the CPU; on a GPU it is what there is without kernels of its own, and has not run on one."""
        return None

    def attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        """See `AttentionBackend.attend`; q has 2 H heads, the directions r and behind them the queries."""
        directions, queries = q.chunk(2, dim=1)
        scale = q.shape[-1] ** -0.5
        if q.shape[2] == 1:
            return _row(queries, directions, k, v, mask, scale)
        return self.compute(queries, directions, k, v, scale, mask=mask)

    def compute(
        self,
        q: Tensor,
        r: Tensor,
        k: Tensor,
        v: Tensor,
        scale: float,
        window: int | None = None,
        mask: Tensor | None = None,
    ) -> Tensor:
        """See `PllaBackend.compute`."""
        return chunked_plla(q, r, k, v, scale, window, mask)

    def decode(self, q: Tensor, r: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
        """See `PllaBackend.decode`."""
        q, r, k, v = (t.transpose(1, 2) for t in (q, r, k, v))
        return _row(q, r, k, v, None, scale).transpose(1, 2)


def _row(q: Tensor, r: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float) -> Tensor:
    """(B, H, 1, D) of one query a row."""
    if need_gradients(q, r, k, v):
        return chunked_plla(q, r, k, v, scale, mask=mask)
    return decode_row(q, r, k, v, mask, scale)


def need_gradients(*tensors: Tensor) -> bool:
    """Whether somebody will ask for gradients of any; what decodes has none."""
    return torch.is_grad_enabled() and any(t.requires_grad for t in tensors)
