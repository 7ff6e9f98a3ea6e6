import torch
from torch import Tensor, nn

from parallax.attention.protocol import AttentionBackend
from parallax.config.models.gpt2 import DuoPredictConfig
from parallax.model.context import BlockContext
from parallax.model.exchange import Exchange
from parallax.model.gpt2 import Gpt2
from parallax.model.head import HeadOutput, Objective
from parallax.model.vocabulary import VocabularyAxis


class Gpt2DuoPredict(Gpt2):
    """GPT-2 that predicts the next token and, from both sides, each token but the last.

    Token t stands in slot 2t, and in slot 2t + 1 a query that predicts token t without seeing it. Tokens see
    tokens up to themselves, never a query: without queries this is GPT-2 with every other position, and so it is
    evaluated, and generates with a cache. A query sees the tokens before t, itself, and token t + 1:

        published   the state of token t + 1, which from the second layer on has itself seen token t. The answer
                    leaks, so accuracy in gaps says nothing.
        strict      the embedding of token t + 1 in every layer, whose keys and values stand beside the states'.
                    No path leads from token t to its query at any depth.

    Training minimises the mean over both kinds of slots; perplexity is that of the next token alone, and so
    comparable with other models'.
    """

    config: DuoPredictConfig

    def __init__(
        self,
        config: DuoPredictConfig,
        backend: AttentionBackend,
        exchange: Exchange | None = None,
        vocabulary: VocabularyAxis | None = None,
    ) -> None:
        super().__init__(config, backend, exchange, vocabulary)
        self.query = nn.Embedding(1, config.hidden_size)

    def gap_logits(self, tokens: Tensor) -> Tensor:
        """(B, T - 1, V): what the query of each token but the last predicts in its place, for (B, T) ids."""
        return self.head.logits(self._slots(tokens, None, None)[:, 1::2])

    def _loss(
        self,
        tokens: Tensor,
        targets: Tensor,
        objective: Objective,
        per_token: bool,
        documents: Tensor | None,
        noise: Tensor | None,
    ) -> HeadOutput:
        if not self.training:
            return super()._loss(tokens, targets, objective, per_token, documents, noise)
        hidden = self._slots(tokens, documents, noise)
        following: HeadOutput = self.head(hidden[:, ::2], targets, objective, per_token)
        filled: HeadOutput = self.head(hidden[:, 1::2], tokens[:, :-1], objective)
        return following._replace(objective_sum=(following.objective_sum + filled.objective_sum) / 2)

    def _slots(self, tokens: Tensor, documents: Tensor | None, noise: Tensor | None) -> Tensor:
        """(B, 2T - 1, D) states of tokens and queries, in turn, of (B, T) ids."""
        assert self.positions is not None
        batch, length = tokens.shape
        of_tokens = self.embedding(tokens)
        of_queries = self.query.weight.to(of_tokens.dtype).expand(batch, length, -1)
        slots = torch.stack((of_tokens, of_queries), dim=2).flatten(1, 2)[:, :-1]
        places = torch.arange(2 * length - 1, device=tokens.device)[None]
        x = self._drop_embedding(slots + self.positions(places), noise)
        mask = duo_mask(length, tokens.device, strict=self.config.is_strict)
        if documents is not None:
            mask = mask & _same_document(documents, self.config.is_strict)
        aside = x[:, ::2] if self.config.is_strict else None
        return self._through(x, BlockContext(places, mask=mask, aside=aside), noise, None)

    def _positions_of(self, places: Tensor) -> Tensor:
        return 2 * places


class GapReader(nn.Module):
    """A duo-predict model asked for gaps: called like a model, it gives the loss of tokens at their queries."""

    def __init__(self, model: Gpt2DuoPredict) -> None:
        super().__init__()
        self.model = model

    def forward(self, tokens: Tensor, targets: Tensor, documents: Tensor | None = None) -> HeadOutput:
        """Of (B, T) ids all but each row's last; `targets`, the next tokens, are not looked at."""
        output: HeadOutput = self.model.head(
            self.model._slots(tokens, documents, None)[:, 1::2], tokens[:, :-1], Objective()
        )
        return output


def duo_mask(length: int, device: torch.device, *, strict: bool) -> Tensor:
    """(1, 1, 2T - 1, S) boolean: what the slots of T tokens and T - 1 queries see.

    S = 2T - 1 slots, and with `strict` T embeddings behind them.
    """
    slot = torch.arange(2 * length - 1, device=device)
    asks = (slot % 2 == 1)[:, None]
    is_token = slot % 2 == 0
    # A token sees tokens up to itself; the query of token t, in slot 2t + 1, those before slot 2t, and itself.
    earlier = is_token & torch.where(asks, slot < slot[:, None] - 1, slot <= slot[:, None])
    seen = earlier | (asks & (slot == slot[:, None]))
    following = slot[:, None] + 1
    if not strict:
        return (seen | (asks & (slot == following)))[None, None]
    embeddings = asks & (2 * torch.arange(length, device=device) == following)
    return torch.cat((seen, embeddings), dim=1)[None, None]


def _same_document(documents: Tensor, strict: bool) -> Tensor:
    """(B, 1, 2T - 1, S) boolean: whether slot and key belong to one document, a query to that of its token."""
    of_slots = documents.repeat_interleave(2, dim=1)[:, :-1]
    of_keys = torch.cat((of_slots, documents), dim=1) if strict else of_slots
    return (of_slots[:, :, None] == of_keys[:, None, :])[:, None]
