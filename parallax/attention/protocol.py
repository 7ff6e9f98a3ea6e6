from typing import Protocol

import torch
from torch import Tensor


class AttentionBackend(Protocol):
    """One way of computing an attention operator. A backend never changes the result beyond rounding."""

    name: str
    """The name in `runtime.attention_backend`."""

    def unavailable(self, device: torch.device) -> str | None:
        """Why this backend cannot run on `device`, or None if it can."""
        ...

    def attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        """Attention of queries over keys and values.

        Args:
            q: (B, H, T, E) queries; of an operator with directions (PLLA) (B, 2 H, T, E), these before them.
            k: (B, G, S, E) keys; query head h reads key head h // (H / G).
            v: (B, G, S, E) values.
            mask: (B, 1, T, S) boolean, true where a query may look; each query must see at least one key.
                None: causal, the queries being the last T of the S positions.

        Returns:
            (B, H, T, E).
        """
        ...
