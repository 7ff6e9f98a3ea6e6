"""A vocabulary that no number of ranks divides: GPT-2's 50,257, split without a row of padding."""

from collections.abc import Callable

import pytest
import torch
from cases import LAYOUTS
from parity import ALONE, Case, build_engine, compare, train_two_steps
from worker_pool import WorkerPool

from parallax.generate.decode import generate
from parallax.generate.sampling import SamplingOptions

V = 50_257
PoolOf = Callable[[int], WorkerPool]
HOT = SamplingOptions(temperature=1000.0)
"""Nearly every id is as likely as any other, one of padding too."""


@pytest.mark.parametrize("layout", ["track2", "track4", "track2-fsdp2"])
def test_training_with_smoothing_and_z_loss_equals_one_process(layout: str, pool_of: PoolOf) -> None:
    case = Case(LAYOUTS[layout], "vocab_split", num_tracks=4, vocab_size=V)
    assert case.objective.label_smoothing > 0
    assert case.objective.z_loss > 0
    found = compare(case, pool_of(case.layout.world_size).run(train_two_steps, case))
    assert max(found.loss, found.gradient, found.norm, found.weights) < 1e-10, found
    assert found.ledger == 0


def write(case: Case) -> tuple[int, list[list[int]]]:
    """The number of logits a token has, and the ids written after two prompts."""
    engine, _ = build_engine(case)
    with torch.no_grad():
        logits = engine.model(torch.tensor([[1, 2]]))
        written = generate(engine.model, [[1, 2], [V - 1]], max_new_tokens=4, options=HOT, seed=3, eos_id=0)
    return logits.shape[-1], [row.tokens for row in written]


@pytest.mark.parametrize("layout", ["track2", "track4"])
def test_generation_writes_the_ids_of_one_process_and_none_beyond_the_vocabulary(
    layout: str, pool_of: PoolOf
) -> None:
    case = Case(LAYOUTS[layout], "vocab_split", num_tracks=4, vocab_size=V)
    expected = write(Case(ALONE, num_tracks=4, vocab_size=V))
    assert expected[0] == V
    assert max(max(row) for row in expected[1]) < V
    assert pool_of(case.layout.world_size).run(write, case) == [expected] * case.layout.world_size
