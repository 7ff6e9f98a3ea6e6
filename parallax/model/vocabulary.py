from typing import NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor


class LogitStatistics(NamedTuple):
    """What the loss needs of each token's logits l over the rows at hand; every field is (N,)."""

    max: Tensor
    """m = max_j l_j."""
    sum_exp: Tensor
    """sum_j exp(l_j - m)."""
    target: Tensor
    """l_target, 0 where the target's row is not here."""
    total: Tensor
    """sum_j l_j; 0 where nothing needs it."""
    argmax: Tensor
    """The token id of the largest logit."""


class VocabularyAxis(Protocol):
    """How the rows of embedding and head are spread over ranks; injected into the model like the exchange.

    It owns no parameters.
    """

    vocab_size: int
    """V."""
    rows: range
    """The token ids whose rows are held here."""

    def embed(self, tokens: Tensor, weight: Tensor) -> Tensor:
        """The embeddings (B, T, D) of ids (B, T), from all ranks' rows. Backward: each rank's rows get theirs."""
        ...

    def enter(self, hidden: Tensor) -> Tensor:
        """Hands the last states to the head. Forward: identity. Backward: the sum of all ranks' gradients."""
        ...

    def merge(self, local: LogitStatistics) -> LogitStatistics:
        """The statistics over the whole vocabulary, given those of the rows held here."""
        ...

    def gather(self, logits: Tensor) -> Tensor:
        """(..., V) logits, the same everywhere, given those (..., rows) of the rows held here."""
        ...


class WholeVocabulary:
    """All rows are here: nothing to merge."""

    def __init__(self, vocab_size: int) -> None:
        self.vocab_size = vocab_size
        self.rows = range(vocab_size)

    def embed(self, tokens: Tensor, weight: Tensor) -> Tensor:
        """Rows of the weight."""
        return F.embedding(tokens, weight)

    def enter(self, hidden: Tensor) -> Tensor:
        """The states as they are."""
        return hidden

    def merge(self, local: LogitStatistics) -> LogitStatistics:
        """The statistics as they are."""
        return local

    def gather(self, logits: Tensor) -> Tensor:
        """The logits as they are."""
        return logits


def reduce_logits(logits: Tensor, targets: Tensor, first_id: int, *, with_total: bool) -> LogitStatistics:
    """Statistics of (N, rows) logits.

    Args:
        logits: fp32 or wider.
        targets: (N,) token ids, of which some may lie outside the rows.
        first_id: the token id of the first row.
        with_total: whether sum_j l_j is wanted, which costs another sweep; 0 otherwise.
    """
    largest, where = logits.max(dim=-1)
    local = targets - first_id
    held = (local >= 0) & (local < logits.shape[-1])
    picked = logits.gather(-1, local.clamp(0, logits.shape[-1] - 1)[:, None])[:, 0]
    total = logits.sum(-1) if with_total else torch.zeros_like(largest)
    return LogitStatistics(
        max=largest,
        sum_exp=(logits - largest[:, None]).exp_().sum(-1),
        target=torch.where(held, picked, 0.0),
        total=total,
        argmax=where + first_id,
    )
