import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from parallax.model.vocabulary import LogitStatistics
from parallax.parallel.collectives import copy_to_group, sum_over_group


class SplitVocabulary:
    """Embedding and head with their rows divided over the ranks of a group; see `VocabularyAxis`.

    The first ranks hold ceil(V / n) rows each, the last one what is left: there are no rows of padding, and so
    none that a sum over the vocabulary would have to leave out.

    Args:
        vocab_size: V.
        group: the ranks along the track axis, in order.
    """

    def __init__(self, vocab_size: int, group: dist.ProcessGroup) -> None:
        self.vocab_size = vocab_size
        self._size = -(-vocab_size // group.size())
        first = min(dist.get_rank(group) * self._size, vocab_size)
        self.rows = range(first, min(first + self._size, vocab_size))
        self._group = group

    def embed(self, tokens: Tensor, weight: Tensor) -> Tensor:
        """Each rank looks up the ids it has; forward: one all-reduce of (B, T, D)."""
        local = tokens - self.rows.start
        held = (local >= 0) & (local < len(self.rows))
        found = F.embedding(torch.where(held, local, 0), weight)
        return sum_over_group(found * held[..., None].to(found.dtype), self._group)

    def enter(self, hidden: Tensor) -> Tensor:
        """Backward: one all-reduce of (B, T, D), since each rank's rows give a part of the gradient."""
        return copy_to_group(hidden, self._group)

    def merge(self, local: LogitStatistics) -> LogitStatistics:
        """One all-gather of five numbers a token.

        With m_r, s_r of rank r: m = max m_r, s = sum_r s_r exp(m_r - m); targets and totals add up. Of equal
        largest logits the lowest id counts, as in one process.
        """
        packed = torch.stack([field.to(local.max.dtype) for field in local])
        gathered = packed.new_empty((self._group.size(), *packed.shape))
        dist.all_gather(list(gathered), packed, group=self._group)
        largest, sum_exp, target, total, argmax = gathered.unbind(1)
        top, rank = largest.max(dim=0)
        return LogitStatistics(
            max=top,
            sum_exp=(sum_exp * (largest - top).exp()).sum(0),
            target=target.sum(0),
            total=total.sum(0),
            argmax=argmax.gather(0, rank[None])[0].to(local.argmax.dtype),
        )

    def gather(self, logits: Tensor) -> Tensor:
        """One all-gather; a short last rank's logits are filled up for the journey and cut again."""
        padded = F.pad(logits, (0, self._size - logits.shape[-1]))
        parts = [torch.empty_like(padded) for _ in range(self._group.size())]
        dist.all_gather(parts, padded.contiguous(), group=self._group)
        return torch.cat(parts, dim=-1)[..., : self.vocab_size]
