from torch import Tensor, nn

from parallax.model.vocabulary import VocabularyAxis


class TokenEmbedding(nn.Embedding):
    """The rows of the token embedding that are held here; the vocabulary axis finds the others."""

    def __init__(self, hidden_size: int, vocabulary: VocabularyAxis) -> None:
        super().__init__(len(vocabulary.rows), hidden_size)
        self.vocabulary = vocabulary

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, T) ids -> (B, T, D)."""
        return self.vocabulary.embed(tokens, self.weight)
