from torch import Tensor, nn

from parallax.config.models.base import ModelConfig
from parallax.model.vocabulary import VocabularyAxis


class TokenEmbedding(nn.Embedding):
    """The rows of the token embedding that are held here; the vocabulary axis finds the others."""

    def __init__(self, hidden_size: int, vocabulary: VocabularyAxis) -> None:
        super().__init__(len(vocabulary.rows), hidden_size)
        self.vocabulary = vocabulary

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, T) ids -> (B, T, D)."""
        return self.vocabulary.embed(tokens, self.weight)


def build_positions(config: ModelConfig) -> nn.Embedding | None:
    """The learned embedding of positions, of architectures that have one; every rank holds all of it."""
    return nn.Embedding(config.num_positions, config.hidden_size) if config.num_positions else None
