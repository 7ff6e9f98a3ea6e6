"""What one step asks of the engine, the loader and the guard."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from tiny_runs import tiny_config
from torch import Tensor

from parallax.data.corpus import Corpus
from parallax.data.loader import Loader, LoaderSource
from parallax.errors import NonFiniteError
from parallax.model.head import Objective
from parallax.parallel.engine import Engine, LossSums
from parallax.train.guard import FiniteGuard
from parallax.train.progress import Progress
from parallax.train.schedule import learning_rate
from parallax.train.step import StepResult, train_step


class RecordingEngine:
    """Notes what it is asked for; its losses and norms are those it is given."""

    def __init__(self, *, scales_loss: bool = False, loss: float = 1.0, norm: float = 2.0) -> None:
        self.scales_loss = scales_loss
        self.micro_batches: list[Tensor] = []
        self.noise: list[Tensor] = []
        self.objectives: list[Objective] = []
        self.rates: list[float] = []
        self._loss, self._norm = loss, norm

    def forward_backward(
        self, micro_batches: Sequence[Tensor], objective: Objective, noise: Sequence[Tensor]
    ) -> LossSums:
        self.micro_batches += micro_batches
        self.noise += noise
        self.objectives.append(objective)
        one = torch.tensor(self._loss)
        return LossSums(one, one, one, one, sum(windows[:, 1:].numel() for windows in micro_batches))

    def clip_and_step(self, rate: float) -> Tensor:
        self.rates.append(rate)
        return torch.tensor(self._norm)


class Steps:
    """Some steps of a tiny run over the corpus."""

    def __init__(self, corpus: Path, engine: RecordingEngine, **changes: Any) -> None:
        self.config = tiny_config({"data.path": str(corpus), **changes})
        self.engine = engine
        self.guard = FiniteGuard(torch.device("cpu"))
        self.progress = Progress()
        split = Corpus.open(corpus).split("train")
        self.loader_sources = [LoaderSource(split, "tested")]
        self.loader = Loader(self.loader_sources, max_seq_len=32, seed=3)

    def take(self, count: int) -> list[StepResult]:
        engine = cast(Engine, self.engine)
        return [
            train_step(self.config, 12, 1000, engine, self.loader, self.guard, self.progress) for _ in range(count)
        ]


def test_the_global_batch_is_cut_in_its_order_and_the_next_step_reads_on(corpus: Path) -> None:
    steps = Steps(corpus, RecordingEngine(), **{"train.micro_batch": 2})
    expected = steps.loader.samples(0, 8)
    steps.take(2)
    assert [windows.shape for windows in steps.engine.micro_batches] == [(2, 33)] * 4
    assert torch.equal(torch.cat(steps.engine.micro_batches), expected)


def test_every_sample_of_every_step_has_noise_of_its_own_in_every_epoch(corpus: Path) -> None:
    steps = Steps(corpus, RecordingEngine(), **{"train.micro_batch": 1})
    steps.loader = Loader(steps.loader_sources, max_seq_len=32, seed=3, limit_samples=5)
    steps.take(3)
    assert [keys.shape for keys in steps.engine.noise] == [(1,)] * 12
    assert len(set(torch.cat(steps.engine.noise).tolist())) == 12


def test_the_noise_depends_on_the_sample_and_the_seed_alone(corpus: Path) -> None:
    through, later, other = (
        Steps(corpus, RecordingEngine(), **{"train.micro_batch": size, "seed": seed})
        for size, seed in ((2, 3), (1, 3), (2, 4))
    )
    through.take(3)
    later.loader.cursor = 8
    later.take(1)
    other.take(3)
    keys, later_keys, other_keys = (torch.cat(steps.engine.noise) for steps in (through, later, other))
    assert torch.equal(later_keys, keys[8:])
    assert not set(other_keys.tolist()) & set(keys.tolist())


def test_the_rate_of_the_step_is_used_and_told(corpus: Path) -> None:
    steps = Steps(corpus, RecordingEngine())
    results = steps.take(12)
    expected = [learning_rate(step, 12, steps.config.optim) for step in range(1, 13)]
    assert steps.engine.rates == [result.lr for result in results] == expected


def test_steps_tokens_and_operations_are_counted(corpus: Path) -> None:
    steps = Steps(corpus, RecordingEngine())
    steps.take(3)
    assert steps.progress == Progress(step=3, tokens=3 * 4 * 32, flops=3 * 4 * 32 * 1000)


def test_the_objective_is_the_one_that_was_configured(corpus: Path) -> None:
    own = {"loss.z_loss": 0.01, "loss.label_smoothing": 0.1, "loss.chunk_tokens": 7}
    steps = Steps(corpus, RecordingEngine(), **own)
    steps.take(1)
    assert steps.engine.objectives == [Objective(label_smoothing=0.1, z_loss=0.01, chunk_tokens=7)]


@pytest.mark.parametrize("figures", [{"loss": math.nan}, {"norm": math.inf}])
def test_a_loss_or_a_norm_that_is_not_finite_is_noted_with_its_step(
    figures: dict[str, float], corpus: Path
) -> None:
    steps = Steps(corpus, RecordingEngine(**figures))
    steps.take(2)
    with pytest.raises(NonFiniteError, match="step 1"):
        steps.guard.check(lambda: None)


def test_where_the_loss_is_scaled_an_overflowing_norm_is_no_failure_and_a_bad_loss_is(corpus: Path) -> None:
    overflowing = Steps(corpus, RecordingEngine(scales_loss=True, norm=math.inf))
    overflowing.take(2)
    overflowing.guard.check(lambda: None)
    failing = Steps(corpus, RecordingEngine(scales_loss=True, loss=math.inf))
    failing.take(1)
    with pytest.raises(NonFiniteError):
        failing.guard.check(lambda: None)
