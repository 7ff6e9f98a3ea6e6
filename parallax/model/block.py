from dataclasses import dataclass

import torch
from torch import Tensor, nn

from parallax.attention.protocol import AttentionBackend
from parallax.config.model import DualTrackConfig
from parallax.model.cache import LayerCache
from parallax.model.linear import Linear
from parallax.model.noise import drop
from parallax.model.norm import RMSNorm
from parallax.model.rotary import apply_rotary
from parallax.model.swiglu import SwiGLU


@dataclass(frozen=True)
class BlockContext:
    """What a block needs beside its input; made once per forward and shared by all blocks."""

    cos: Tensor
    """(B or 1, 1, T, E/2) cosines of the positions."""
    sin: Tensor
    """(B or 1, 1, T, E/2) sines of the positions."""
    mask: Tensor | None = None
    """(B, 1, T, S) boolean, true where a query may look; None: causal."""
    noise: Tensor | None = None
    """(2, B, 2) keys of this block's dropouts in this pass (`block_keys`), attention first; None: no dropout.
    It alone is each block's own."""


class Attention(nn.Module):
    """Grouped-query attention with rotary positions; q, k and v are rows of one matrix."""

    def __init__(self, config: DualTrackConfig, backend: AttentionBackend) -> None:
        super().__init__()
        self.head_dim = config.head_dim
        self.sizes_turned = [config.num_heads, config.num_kv_heads]
        self.sizes = [sum(self.sizes_turned), config.num_kv_heads]
        self.backend = backend
        self.qkv = Linear(config.hidden_size, sum(self.sizes) * self.head_dim)
        self.output = Linear(config.hidden_size, config.hidden_size)

    def forward(self, hidden: Tensor, context: BlockContext, slot: LayerCache | None) -> Tensor:
        """(B, T, D) -> (B, T, D); with a cache slot, keys and values of earlier tokens are read from it."""
        heads = self.qkv(hidden).unflatten(-1, (-1, self.head_dim)).transpose(1, 2)  # (B, H + 2G, T, E)
        turned, v = heads.split(self.sizes, dim=1)
        q, k = torch.split(apply_rotary(turned, context.cos, context.sin), self.sizes_turned, dim=1)
        if slot is not None:
            k, v = slot.append(k, v)
        attended = self.backend.attend(q, k, v, context.mask)
        return self.output(attended.transpose(1, 2).flatten(2))


class Block(nn.Module):
    """One pre-norm decoder block: h + attention(norm(h)), then h + swiglu(norm(h))."""

    def __init__(self, config: DualTrackConfig, backend: AttentionBackend) -> None:
        super().__init__()
        self.attention_norm = RMSNorm(config.hidden_size, eps=config.norm_eps)
        self.attention = Attention(config, backend)
        self.mlp_norm = RMSNorm(config.hidden_size, eps=config.norm_eps)
        self.mlp = SwiGLU(config.hidden_size, config.intermediate_size)
        self.dropout = config.dropout

    def forward(self, hidden: Tensor, context: BlockContext, slot: LayerCache | None = None) -> Tensor:
        """(B, T, D) -> (B, T, D).

        Raises:
            ValueError: training with dropout and no noise in the context.
        """
        hidden = hidden + self._drop(self.attention(self.attention_norm(hidden), context, slot), context, 0)
        return hidden + self._drop(self.mlp(self.mlp_norm(hidden)), context, 1)

    def _drop(self, branch: Tensor, context: BlockContext, site: int) -> Tensor:
        if not (self.training and self.dropout):
            return branch
        if context.noise is None:
            raise ValueError(f"training with dropout={self.dropout} needs the context's noise")
        return drop(branch, self.dropout, context.noise[site])
