import torch
from torch import Tensor


class EagerSoftmax:
    """The definition written out, with every score in memory: the oracle of the other backends."""

    name = "eager"

    def unavailable(self, device: torch.device) -> str | None:
        """Runs everywhere."""
        return None

    def attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        """O = softmax(q k^T / sqrt(E) + mask) v; see `AttentionBackend.attend` for shapes."""
        group = q.shape[1] // k.shape[1]
        k, v = (t.repeat_interleave(group, dim=1) for t in (k, v))
        scores = q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5
        if mask is None:
            mask = causal_mask(q.shape[2], k.shape[2], q.device)
        scores = scores.masked_fill(~mask, float("-inf"))
        # Half-precision scores are normalised in fp32, as every fused kernel does.
        wide = scores if scores.dtype == torch.float64 else scores.float()
        return wide.softmax(dim=-1).to(v.dtype) @ v


def causal_mask(num_queries: int, num_keys: int, device: torch.device) -> Tensor:
    """(T, S) boolean: query i, the last T of S positions, sees key j when j <= i + S - T."""
    ones = torch.ones(num_queries, num_keys, dtype=torch.bool, device=device)
    return ones.tril(num_keys - num_queries)
