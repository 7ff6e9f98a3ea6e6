"""`kill -9` at any moment, the same command again: the losses continue bit for bit."""

import random
import signal
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest
from tiny_runs import assert_same_run, checkpoint_steps, finish, measured, num_lines, start, train_here, wait_until

from parallax.metrics.journal import read_journal

Settings = Callable[..., dict[str, Any]]
STEPS = 60
RUN = {"train.max_steps": STEPS, "train.eval_every": 10, "train.save_every": 5, "sample.every": 15}
BUSY = {
    **RUN,
    "model.dropout": 0.1,
    "model.tie_embeddings": True,
    "train.micro_batch": 1,
    "train.precision": "bf16",
    "train.activation_checkpointing": True,
    "train.log_every": 3,
    "optim.schedule": "warmup_stable_decay",
}
Moment = Callable[[BaseProcess], bool]


class Killed:
    """A run that is started and killed again and again."""

    def __init__(self, settings: dict[str, Any], log: Path) -> None:
        self.run = Path(settings["run.dir"])
        self.log = log
        self._settings = settings

    def live_until(self, moment: Moment) -> bool:
        """Starts it and kills it when `moment` has come; False: it was complete before."""
        process = start(self._settings, self.log)
        if not moment(process):
            assert finish(process) == 0
            return False
        process.kill()
        assert finish(process) in (-signal.SIGKILL, 0)
        return True

    def lines(self, count: int) -> Moment:
        """When so many lines more were written than there are now."""
        goal = num_lines(self.run) + count
        return lambda process: wait_until(lambda: num_lines(self.run) >= goal, process)

    def writing(self) -> Moment:
        """In the middle of the next checkpoint: its folder is there under the name of what is not finished."""
        checkpoints = self.run / "checkpoints"
        return lambda process: wait_until(lambda: _holds_files(checkpoints), process)

    def renaming(self) -> Moment:
        """Just after the next checkpoint was moved into place."""
        before = set(self.run.glob("checkpoints/step-*"))
        return lambda process: wait_until(lambda: not before >= set(self.run.glob("checkpoints/step-*")), process)


def _holds_files(checkpoints: Path) -> bool:
    """Whether a folder that is not finished has files; one may vanish while it is looked at."""
    try:
        return any(checkpoints.glob(".incomplete-step-*/*"))
    except FileNotFoundError:
        return False


def uninterrupted(settings: dict[str, Any]) -> Path:
    assert train_here(settings)[0] == 0
    return Path(settings["run.dir"])


def assert_continued(run: Path, whole: Path, *, log_every: int = 1) -> None:
    expected = sorted({*range(log_every, STEPS + 1, log_every), *range(10, STEPS + 1, 10)})
    assert [record["step"] for record in measured(run)] == expected, "no step twice, none missing"
    assert_same_run(run, whole, step=STEPS)
    assert checkpoint_steps(run) == checkpoint_steps(whole)
    assert (run / "checkpoints" / "best.json").read_text() == (whole / "checkpoints" / "best.json").read_text()
    assert not list(run.rglob(".incomplete-*"))


def test_a_killed_run_continues_bit_for_bit(settings: Settings, tmp_path: Path) -> None:
    killed = Killed(settings(RUN), tmp_path / "log.txt")
    assert killed.live_until(killed.lines(8))
    assert killed.live_until(killed.writing())
    assert list(killed.run.glob("checkpoints/.incomplete-*")), "it was not killed while it wrote"
    killed.live_until(lambda process: False)
    assert_continued(killed.run, uninterrupted(settings(RUN, run="whole")))
    assert "deleted" in killed.log.read_text(), "what was left unfinished is cleared, with a word"


@pytest.mark.slow
@pytest.mark.parametrize("changes", [RUN, BUSY], ids=["plain", "dropout, accumulation, bf16, recomputation"])
def test_a_run_killed_many_times_at_random_moments_continues_bit_for_bit(
    changes: dict[str, Any], settings: Settings, tmp_path: Path
) -> None:
    draw = random.Random(str(sorted(changes)))
    killed = Killed(settings(changes), tmp_path / "log.txt")
    kills, torn_writes = 0, 0
    for _ in range(14):
        random_lines = killed.lines(draw.randint(0, 9))
        alive = killed.live_until(draw.choice([random_lines, random_lines, killed.writing(), killed.renaming()]))
        if not alive:
            break
        kills += 1
        torn_writes += bool(list(killed.run.glob("checkpoints/.incomplete-*")))
    killed.live_until(lambda process: False)
    assert kills >= 5
    assert torn_writes >= 1
    assert_continued(
        killed.run, uninterrupted(settings(changes, run="whole")), log_every=changes.get("train.log_every", 1)
    )


def test_time_and_tokens_are_counted_over_restarts(settings: Settings, tmp_path: Path) -> None:
    killed = Killed(settings({**RUN, "train.max_steps": 20}), tmp_path / "log.txt")
    killed.live_until(killed.lines(12))
    killed.live_until(lambda process: False)
    seconds = [record["seconds"] for record in read_journal(killed.run / "journal.jsonl")]
    assert seconds == sorted(seconds)
    assert measured(killed.run)[-1]["tokens"] == 20 * 4 * 32
