from collections.abc import Sequence
from dataclasses import dataclass

import torch

from parallax.errors import DataError
from parallax.model.gpt2_duo_predict import Gpt2DuoPredict
from parallax.model.mode import evaluation_mode

_PLACEHOLDER = 0
"""Stands where the token is missing; a strict query knows nothing of it."""


@dataclass(frozen=True)
class Candidate:
    """A token that may have stood in a gap."""

    token: int
    probability: float


@torch.no_grad()
def fill_gap(model: Gpt2DuoPredict, before: Sequence[int], after: Sequence[int], top: int) -> list[Candidate]:
    """The likeliest tokens between two texts, the likeliest first.

    Of what stands before the gap, as much as the window holds is read; of what stands after it, the first token.

    Args:
        model: a strict one.
        before: token ids before the gap; may be empty.
        after: token ids after it.
        top: how many.

    Raises:
        DataError: the model's queries are not strict, or nothing stands after the gap.
    """
    if not model.config.is_strict:
        raise DataError(
            f"model.architecture={model.config.architecture}: its queries see the token after a gap, which has "
            "seen the token in it, so it cannot fill one; train gpt2_duo_predict_strict"
        )
    if not after:
        raise DataError("nothing stands after the gap; what follows a text, `parallax generate` writes")
    known = list(before)[max(0, len(before) - model.config.max_seq_len + 2) :]
    device = model.embedding.weight.device
    tokens = torch.tensor([[*known, _PLACEHOLDER, after[0]]], device=device)
    with evaluation_mode(model):
        found = model.gap_logits(tokens)[0, len(known)].softmax(-1).topk(min(top, model.config.vocab_size))
    return [Candidate(int(i), float(p)) for p, i in zip(found.values, found.indices, strict=True)]
