"""A head whose rows are split in two halves, both simulated in one process, against the whole head."""

from typing import Any

import pytest
import torch
from torch import Tensor

from parallax.model.head import IGNORE_INDEX, HeadOutput, LanguageHead, Objective
from parallax.model.vocabulary import LogitStatistics, WholeVocabulary, reduce_logits

D, V, CHUNK = 5, 12, 4
EXACT = {"rtol": 1e-12, "atol": 1e-12}


class HalfVocabulary(WholeVocabulary):
    """Holds one half's rows and knows the statistics of the other's, chunk by chunk, as a collective would."""

    def __init__(self, first_id: int, other: list[LogitStatistics]) -> None:
        super().__init__(V)
        self.rows = range(first_id, first_id + V // 2)
        self._other = iter(other)

    def merge(self, local: LogitStatistics) -> LogitStatistics:
        """Both halves' statistics as one; of equal maxima, the lower token id counts."""
        other = next(self._other)
        highest = torch.maximum(local.max, other.max)
        sums = local.sum_exp * (local.max - highest).exp() + other.sum_exp * (other.max - highest).exp()
        return LogitStatistics(
            max=highest,
            sum_exp=sums,
            target=local.target + other.target,
            total=local.total + other.total,
            argmax=torch.where(local.max > other.max, local.argmax, other.argmax),
        )


def make_inputs() -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(V, D, generator=generator, dtype=torch.float64)
    hidden = torch.randn(2, 5, D, generator=generator, dtype=torch.float64)
    targets = torch.randint(V, (2, 5), generator=generator)
    targets[1, 2] = IGNORE_INDEX
    targets[0, 0], targets[0, 1] = 0, V - 1
    return weight, hidden, targets


def chunk_statistics(weight: Tensor, first_id: int, hidden: Tensor, targets: Tensor) -> list[LogitStatistics]:
    chunks = zip(hidden.flatten(0, 1).split(CHUNK), targets.flatten().split(CHUNK), strict=True)
    return [reduce_logits(states @ weight.T, ids, first_id, with_total=True) for states, ids in chunks]


def run_head(
    weight: Tensor, axis: Any, hidden: Tensor, targets: Tensor, objective: Objective
) -> tuple[HeadOutput, Tensor, Tensor]:
    head = LanguageHead(D, axis).double()
    head.weight = torch.nn.Parameter(weight.clone())
    hidden = hidden.clone().requires_grad_()
    output = head(hidden, targets, objective, per_token=True)
    output.objective_sum.backward()
    assert hidden.grad is not None
    assert head.weight.grad is not None
    return output, hidden.grad, head.weight.grad


@pytest.mark.parametrize(("label_smoothing", "z_loss"), [(0.0, 0.0), (0.2, 0.05)])
@pytest.mark.parametrize("cut", [6, 1, 9])
def test_two_parts_of_the_vocabulary_give_the_whole_loss_and_gradients(
    cut: int, label_smoothing: float, z_loss: float
) -> None:
    weight, hidden, targets = make_inputs()
    objective = Objective(label_smoothing=label_smoothing, z_loss=z_loss, chunk_tokens=CHUNK)
    whole, whole_hidden, whole_weight = run_head(weight, WholeVocabulary(V), hidden, targets, objective)

    low, high = (
        chunk_statistics(weight[:cut], 0, hidden, targets),
        chunk_statistics(weight[cut:], cut, hidden, targets),
    )
    lower = run_head(weight[:cut], HalfVocabulary(0, high), hidden, targets, objective)
    upper = run_head(weight[cut:], HalfVocabulary(cut, low), hidden, targets, objective)

    for output, _, _ in (lower, upper):
        torch.testing.assert_close(output, whole, **EXACT)
    torch.testing.assert_close(lower[1] + upper[1], whole_hidden, **EXACT)
    torch.testing.assert_close(torch.cat((lower[2], upper[2])), whole_weight, **EXACT)


def test_statistics_of_a_part_speak_of_global_token_ids() -> None:
    logits = torch.tensor([[1.0, 3.0, 2.0], [5.0, 4.0, 0.0]])
    found = reduce_logits(logits.clone(), torch.tensor([12, 3]), first_id=10, with_total=True)
    assert found.argmax.tolist() == [11, 10]
    assert found.target.tolist() == [2.0, 0.0]
    assert found.total.tolist() == [6.0, 9.0]
    assert found.max.tolist() == [3.0, 5.0]
    torch.testing.assert_close(found.max + found.sum_exp.log(), logits.logsumexp(-1))
