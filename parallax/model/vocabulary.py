from typing import NamedTuple, Protocol

import torch
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
    """How the rows of the language head are spread over ranks; injected into the head like the exchange."""

    first_id: int
    """The token id of the first row held here."""

    def merge(self, local: LogitStatistics) -> LogitStatistics:
        """The statistics over the whole vocabulary, given those of the rows held here."""
        ...


class WholeVocabulary:
    """All rows are here: nothing to merge."""

    first_id = 0

    def merge(self, local: LogitStatistics) -> LogitStatistics:
        """The statistics as they are."""
        return local


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
