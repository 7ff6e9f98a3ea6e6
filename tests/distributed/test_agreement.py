"""A signal to any rank: all leave after the same step, and one step later at most."""

import random
import signal
from pathlib import Path

import pytest

from evaluation.faults.trial import Trial
from evaluation.faults.worker import Setup
from parallax.runtime.agreement import Agreement

SIGNALS = [signal.SIGTERM, signal.SIGUSR1]


@pytest.mark.slow
def test_all_ranks_leave_after_the_same_step(tmp_path: Path) -> None:
    draw = random.Random(0)
    with Trial(Setup(tmp_path, deadline_seconds=30)) as trial:
        for _ in range(10):
            victim, number = draw.randrange(4), draw.choice(SIGNALS)
            left = trial.signal_round(victim, number, draw.uniform(0, 0.3))
            assert len({one.step for one in left}) == 1, left
            assert {one.signal for one in left} == {number}
            assert {one.tokens for one in left} == {4 * 64}
            arrived = left[victim].arrived
            assert arrived is not None
            assert left[0].step - arrived in (0, 1)
        assert trial.leave() == [0, 0, 0, 0]
    assert not (tmp_path / "flight").exists()


def test_one_process_agrees_with_itself() -> None:
    agreement = Agreement(None, num_sums=2)
    agreement.begin(None, [3, 4])
    assert agreement.finish() == (None, (3, 4))
    agreement.begin(signal.SIGUSR1, [0, 1 << 40])
    assert agreement.finish() == (signal.SIGUSR1, (0, 1 << 40))
