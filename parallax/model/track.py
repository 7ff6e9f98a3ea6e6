from collections.abc import Sequence
from dataclasses import replace

from torch import Tensor, nn

from parallax.attention.protocol import AttentionBackend
from parallax.config.models.base import ModelConfig
from parallax.model.block import Block
from parallax.model.cache import LayerCache
from parallax.model.context import BlockContext


class Track(nn.Module):
    """An independent stack of blocks, run once per pass with the same weights."""

    def __init__(self, config: ModelConfig, backend: AttentionBackend) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(config, backend) for _ in range(config.layers_per_track))

    def forward(
        self,
        hidden: Tensor,
        context: BlockContext,
        slots: Sequence[LayerCache] | None = None,
        noise: Tensor | None = None,
    ) -> Tensor:
        """(B, T, D) -> (B, T, D): one pass.

        Args:
            hidden: what the track reads.
            context: what all blocks share.
            slots: one cache slot per layer, those of this pass.
            noise: (L, 2, B, 2) keys, those of this pass.
        """
        for layer in range(len(self.blocks)):
            hidden = self.run_block(layer, hidden, context, slots[layer] if slots is not None else None, noise)
        return hidden

    def run_block(
        self, layer: int, hidden: Tensor, context: BlockContext, slot: LayerCache | None, noise: Tensor | None
    ) -> Tensor:
        """(B, T, D) -> (B, T, D): one block.

        Args:
            layer: which.
            hidden: what it reads.
            context: what all blocks share.
            slot: of the cache.
            noise: (L, 2, B, 2) keys of all blocks, those of this pass.
        """
        if noise is not None:
            # Keys are tensors, so a compiled block serves every layer and pass.
            context = replace(context, noise=noise[layer])
        output: Tensor = self.blocks[layer](hidden, context, slot)
        return output
