import torch
from torch import Tensor, nn

from parallax.attention.protocol import AttentionBackend
from parallax.config.models.base import ModelConfig
from parallax.config.models.gpt2 import DriftDiffusionConfig, RotatingHeadConfig
from parallax.model.cache import LayerCache
from parallax.model.context import BlockContext
from parallax.model.drift_diffusion import DriftDiffusion
from parallax.model.linear import Linear
from parallax.model.rotary import apply_rotary
from parallax.model.rotation import HeadFrequencies


class Attention(nn.Module):
    """Grouped-query attention; q, k and v are rows of one matrix.

    What architectures differ in: where the angles of rotary positions come from, if there are any, and what
    happens to the heads' outputs before they are projected.
    """

    def __init__(self, config: ModelConfig, backend: AttentionBackend) -> None:
        super().__init__()
        self.head_dim = config.head_dim
        self.sizes = [config.num_heads + config.num_kv_heads, config.num_kv_heads]
        self.sizes_turned = [(2 if config.has_directions else 1) * config.num_heads, config.num_kv_heads]
        self.backend = backend
        self.qkv = Linear(config.hidden_size, sum(self.sizes) * self.head_dim, bias=config.has_biases)
        self.output = Linear(config.hidden_size, config.hidden_size, bias=config.has_biases)
        self.directions = Linear(config.hidden_size, config.hidden_size) if config.has_directions else None
        self.rotation = HeadFrequencies(config) if isinstance(config, RotatingHeadConfig) else None
        self.perturbation = DriftDiffusion(config) if isinstance(config, DriftDiffusionConfig) else None

    def forward(
        self, hidden: Tensor, context: BlockContext, slot: LayerCache | None, aside: Tensor | None = None
    ) -> Tensor:
        """(B, T, D) -> (B, T, D).

        Args:
            hidden: what asks and is asked.
            context: what all blocks share.
            slot: keys and values of earlier tokens are read from it.
            aside: (B, N, D) states that are asked only: their keys and values stand behind those of `hidden`.
        """
        heads = self._heads(hidden)
        turned, v = torch.split(heads, self.sizes, dim=1)
        if self.directions is not None:
            # Directions meet keys as queries do, so they are turned like them; the backend takes both as one.
            more = self.directions(hidden).unflatten(-1, (-1, self.head_dim)).transpose(1, 2)
            turned = torch.cat((more, turned), dim=1)
        q, k = torch.split(self._turn(turned, context), self.sizes_turned, dim=1)
        if slot is not None:
            k, v = slot.append(k, v)
        if aside is not None:
            more_keys, more_values = self._heads(aside)[:, -2 * self.sizes[1] :].chunk(2, dim=1)
            k, v = torch.cat((k, more_keys), dim=2), torch.cat((v, more_values), dim=2)
        attended = self.backend.attend(q, k, v, context.mask)
        if self.perturbation is not None:
            key = None if context.noise is None else context.noise[0]
            attended = self.perturbation(attended, context.positions, noise=key)
        return self.output(attended.transpose(1, 2).flatten(2))

    def _heads(self, hidden: Tensor) -> Tensor:
        """(B, T, D) -> (B, H + 2G, T, E)."""
        return self.qkv(hidden).unflatten(-1, (-1, self.head_dim)).transpose(1, 2)

    def _turn(self, heads: Tensor, context: BlockContext) -> Tensor:
        """Rotary positions, where there are any, for the (B, H + G, T, E) queries and keys."""
        if self.rotation is not None:
            cos, sin = self.rotation(context.positions, heads.dtype)
            times = heads.shape[1] // cos.shape[1]
            return apply_rotary(heads, cos.repeat(1, times, 1, 1), sin.repeat(1, times, 1, 1))
        if context.cos is None or context.sin is None:
            return heads
        return apply_rotary(heads, context.cos, context.sin)
