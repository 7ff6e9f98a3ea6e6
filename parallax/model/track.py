from collections.abc import Sequence
from dataclasses import replace

from torch import Tensor, nn

from parallax.attention.protocol import AttentionBackend
from parallax.config.model import DualTrackConfig
from parallax.model.block import Block, BlockContext
from parallax.model.cache import LayerCache


class Track(nn.Module):
    """An independent stack of `num_layers` blocks, run once per pass with the same weights."""

    def __init__(self, config: DualTrackConfig, backend: AttentionBackend) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(config, backend) for _ in range(config.num_layers))

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
            noise: (L, 2, B, 2) dropout keys, those of this pass.
        """
        for layer, block in enumerate(self.blocks):
            own = context
            if noise is not None:
                # Keys are tensors, so a compiled block serves every layer and pass.
                own = replace(context, noise=noise[layer])
            hidden = block(hidden, own, slots[layer] if slots is not None else None)
        return hidden
