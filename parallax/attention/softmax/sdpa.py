import torch
import torch.nn.functional as F
from torch import Tensor

from parallax.attention.softmax.eager import causal_mask


class SdpaSoftmax:
    """PyTorch's fused scaled-dot-product attention (flash, memory-efficient or math, as PyTorch picks)."""

    name = "sdpa"

    def unavailable(self, device: torch.device) -> str | None:
        """Part of PyTorch on every device."""
        return None

    def attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        """See `AttentionBackend.attend`."""
        num_queries, num_keys = q.shape[2], k.shape[2]
        causal = mask is None and num_queries == num_keys
        # One new query sees every key; PyTorch's own flag would align the triangle to the upper left.
        if mask is None and 1 < num_queries < num_keys:
            mask = causal_mask(num_queries, num_keys, q.device)
        grouped = q.shape[1] != k.shape[1]
        if grouped and num_queries == 1:
            return _attend_one(q, k, v, mask)
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal, enable_gqa=grouped)


def _attend_one(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    """One query a row: the query heads of a key head become its queries, so that no key is copied for them."""
    attended = F.scaled_dot_product_attention(q.reshape(*k.shape[:2], -1, q.shape[3]), k, v, attn_mask=mask)
    return attended.reshape(q.shape)
