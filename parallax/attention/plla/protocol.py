from typing import Protocol

from torch import Tensor

from parallax.attention.protocol import AttentionBackend


class PllaBackend(AttentionBackend, Protocol):
    """A backend of PLLA; beside a model's call it takes that of a library's user, who gives scale and window."""

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
        """PLLA of q, r (B, H, T, D) over k, v (B, G, S, D), as `parallax_func` describes it."""
        ...

    def decode(self, q: Tensor, r: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
        """PLLA of q, r (B, 1, H, D) over k, v (B, S, G, D), as `parallax_decode` describes it."""
        ...
