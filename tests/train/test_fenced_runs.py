"""A run that a newer attempt has claimed ends without another write, and says in `state` how it stands."""

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny_runs import checkpoint_steps, finish, num_lines, start, train_here, wait_until

from parallax.errors import ConfigError, FencedError, RunError
from parallax.metrics.journal import Journal, read_journal
from parallax.runtime.lock import RunLock
from parallax.runtime.stop import StopRequest
from parallax.train.loop import run_loop

Settings = Callable[..., dict[str, Any]]


def _state(run: Path) -> str:
    return (run / "state").read_text().strip()


def _files(run: Path) -> dict[str, bytes]:
    """All that a run has written, but for its lock."""
    paths = [path for path in run.rglob("*") if path.is_file() and path.name != ".lock"]
    return {str(path.relative_to(run)): path.read_bytes() for path in sorted(paths)}


def test_a_run_says_how_it_stands_and_in_which_attempt(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    assert train_here(settings({"train.max_steps": 2}))[0] == 0
    assert _state(run) == "done -"
    monkeypatch.setenv("SLURM_JOB_ID", "31")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "2")
    monkeypatch.setenv("SLURM_JOB_NODELIST", "node[3-4]")

    def stopped(session: Any, stop: StopRequest) -> bool:
        assert _state(run) == "running 31.2"
        os.kill(os.getpid(), signal.SIGUSR1)
        return run_loop(session, stop)

    monkeypatch.setattr("parallax.train.command.run_loop", stopped)
    assert train_here(settings({"train.max_steps": 4}))[0] == 128 + signal.SIGUSR1
    assert _state(run) == "stopped 31.2"
    starts = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    assert "slurm" not in starts[0]
    assert starts[-1]["slurm"]["nodelist"] == "node[3-4]"
    assert starts[-1]["slurm"]["restart_count"] == "2"


def test_an_error_of_its_own_is_a_failed_run_and_a_refused_one_leaves_the_state_alone(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"

    def fail(session: Any, stop: StopRequest) -> bool:
        raise RunError("no number")

    with monkeypatch.context() as patched:
        patched.setattr("parallax.train.command.run_loop", fail)
        with pytest.raises(RunError, match="no number"):
            train_here(settings())
    assert _state(run) == "failed -"
    (run / "state").write_text("stopped 7.0\n")
    with pytest.raises(ConfigError):
        train_here(settings({"train.freeze": ["nothing.of.the.kind"]}))
    assert _state(run) == "stopped 7.0"
    with RunLock(run), pytest.raises(RunError, match="in use"):
        train_here(settings())
    assert _state(run) == "stopped 7.0"


def test_what_is_left_of_an_earlier_attempt_writes_nothing_more(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    monkeypatch.setenv("SLURM_JOB_ID", "31")
    seen: list[dict[str, bytes]] = []
    append = Journal.append

    def claimed_at_step_7(journal: Journal, record: dict[str, Any]) -> Any:
        if record["step"] == 7 and not seen:
            monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
            lock = RunLock(run)
            lock.__enter__()
            held.append(lock)
            seen.append(_files(run))
        return append(journal, record)

    held: list[RunLock] = []
    monkeypatch.setattr(Journal, "append", claimed_at_step_7)
    with pytest.raises(FencedError, match=r"was claimed by process .* in attempt 31\.1"):
        train_here(settings())
    assert _files(run) == seen[0]
    assert [record["step"] for record in read_journal(run / "journal.jsonl")] == [1, 2, 3, 4, 5, 6]
    assert _state(run) == "running 31.0"
    held[0].__exit__(None, None, None)


def test_a_checkpoint_is_not_committed_after_the_claim(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    monkeypatch.setenv("SLURM_JOB_ID", "31")
    held: list[RunLock] = []

    def claim_then_write(*arguments: Any, **named: Any) -> None:
        monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
        held.append(RunLock(run))
        held[0].__enter__()

    monkeypatch.setattr("parallax.checkpoint.store.write_checkpoint", claim_then_write)
    with pytest.raises(FencedError):
        train_here(settings({"train.save_every": 3}))
    assert checkpoint_steps(run) == []
    held[0].__exit__(None, None, None)


def _as_first_start() -> None:
    os.environ["SLURM_JOB_ID"] = "31"


def _as_second_start() -> None:
    os.environ |= {"SLURM_JOB_ID": "31", "SLURM_RESTART_COUNT": "1"}


@pytest.mark.slow
def test_a_stopped_orphan_that_wakes_after_the_requeued_run_leaves_no_trace(
    settings: Settings, tmp_path: Path
) -> None:
    run, log = tmp_path / "run", tmp_path / "log.txt"
    steps = {"train.max_steps": 30, "train.save_every": 5}
    orphan = start(settings(steps), log, _as_first_start)
    assert wait_until(lambda: num_lines(run) >= 12, orphan)
    assert orphan.pid is not None
    os.kill(orphan.pid, signal.SIGSTOP)
    requeued = start(settings(steps), tmp_path / "second.txt", _as_second_start)
    assert finish(requeued, 150) == 0, (tmp_path / "second.txt").read_text()
    before = _files(run)
    os.kill(orphan.pid, signal.SIGCONT)
    assert finish(orphan, 150) == 2, log.read_text()
    assert "in attempt 31.1" in log.read_text()
    assert _files(run) == before
    assert [record["step"] for record in read_journal(run / "journal.jsonl")] == list(range(1, 31))
    assert _state(run) == "done 31.1"
