from torch import Tensor, nn

from parallax.attention.protocol import AttentionBackend
from parallax.config.models.base import ModelConfig
from parallax.model.attention import Attention
from parallax.model.cache import LayerCache
from parallax.model.context import BlockContext
from parallax.model.gelu_mlp import GeluMlp
from parallax.model.noise import drop
from parallax.model.norm import build_norm
from parallax.model.swiglu import SwiGLU


class Block(nn.Module):
    """One pre-norm decoder block: h + attention(norm(h)), then h + mlp(norm(h))."""

    def __init__(self, config: ModelConfig, backend: AttentionBackend) -> None:
        super().__init__()
        self.attention_norm = build_norm(config, config.norm_eps)
        self.attention = Attention(config, backend)
        self.mlp_norm = build_norm(config, config.norm_eps)
        mlp = SwiGLU if config.mlp == "swiglu" else GeluMlp
        self.mlp = mlp(config.hidden_size, config.intermediate_size)
        self.dropout = config.dropout

    def forward(self, hidden: Tensor, context: BlockContext, slot: LayerCache | None = None) -> Tensor:
        """(B, T, D) -> (B, T, D).

        Raises:
            ValueError: training with dropout and no noise in the context.
        """
        aside = None if context.aside is None else self.attention_norm(context.aside)
        attended = self.attention(self.attention_norm(hidden), context, slot, aside)
        hidden = hidden + self._drop(attended, context, 0)
        return hidden + self._drop(self.mlp(self.mlp_norm(hidden)), context, 1)

    def _drop(self, branch: Tensor, context: BlockContext, site: int) -> Tensor:
        if not (self.training and self.dropout):
            return branch
        if context.noise is None:
            raise ValueError(f"training with dropout={self.dropout} needs the context's noise")
        return drop(branch, self.dropout, context.noise[site])
