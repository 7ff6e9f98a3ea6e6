"""Ctrl-C and SIGTERM: the run saves and leaves, and the same command goes on as if nothing had happened."""

import json
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tiny_runs import (
    assert_same_run,
    checkpoint_steps,
    finish,
    measured,
    num_lines,
    start,
    tiny_config,
    train_here,
    wait_until,
)

from parallax.runtime.stop import StopRequest
from parallax.train.command import train

Settings = Callable[..., dict[str, Any]]
LONG = {"train.max_steps": 60, "train.eval_every": 20, "train.save_every": 0, "model.dropout": 0.1}


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory, corpus: Path) -> Path:
    """The run of `LONG`, done in one go."""
    run = tmp_path_factory.mktemp("uninterrupted") / "run"
    assert train_here({**LONG, "data.path": str(corpus), "run.dir": str(run)})[0] == 0
    return run


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGUSR1, 138)])
def test_a_run_that_is_asked_to_stop_saves_and_can_go_on(
    sent: signal.Signals, code: int, settings: Settings, tmp_path: Path, uninterrupted: Path
) -> None:
    log = tmp_path / "log.txt"
    process = start(settings(LONG), log)
    assert wait_until(lambda: num_lines(tmp_path / "run") >= 3, process)
    os.kill(process.pid, sent)  # type: ignore[arg-type]
    assert finish(process) == code

    [step] = checkpoint_steps(tmp_path / "run")
    assert 3 <= step < 60
    shown = log.read_text()
    assert f"stopped after step {step}; saved as {tmp_path}/run/checkpoints/step-{step:08d}" in shown
    assert "the same command goes on from there" in shown
    assert "Traceback" not in shown
    event = json.loads((tmp_path / "run" / "events.jsonl").read_text().splitlines()[-1])
    assert (event["event"], event["status"], event["step"]) == ("end", "KILLED", step)

    assert train_here(settings(LONG))[0] == 0
    assert_same_run(tmp_path / "run", uninterrupted, step=60)


class Interrupting:
    """A display that sends this process a signal when it is shown a step."""

    def __init__(self, steps: dict[int, list[signal.Signals]]) -> None:
        self._steps = steps

    def begin(self, done: int, total: int) -> None: ...

    def message(self, text: str) -> None: ...

    def end(self) -> None: ...

    def tick(self, step: int) -> None: ...

    def step(self, record: dict[str, Any]) -> None:
        for number in self._steps.get(record["step"], []):
            signal.raise_signal(number)


@contextmanager
def signals_at(steps: dict[int, list[signal.Signals]]) -> Iterator[None]:
    """Lets signals arrive while a given step is being shown."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("parallax.train.command.open_display", lambda console: Interrupting(steps))
        yield


def test_the_step_being_done_is_finished_and_no_other_begun(settings: Settings, tmp_path: Path) -> None:
    with signals_at({5: [signal.SIGTERM]}):
        assert train(tiny_config(settings())) == 143
    assert [record["step"] for record in measured(tmp_path / "run")] == [1, 2, 3, 4, 5]
    assert checkpoint_steps(tmp_path / "run") == [5]


def test_a_signal_during_the_last_step_does_not_make_the_run_incomplete(
    settings: Settings, tmp_path: Path
) -> None:
    with signals_at({12: [signal.SIGINT]}):
        assert train(tiny_config(settings())) == 0
    assert checkpoint_steps(tmp_path / "run")[-1] == 12
    assert json.loads((tmp_path / "run" / "events.jsonl").read_text().splitlines()[-1])["status"] == "FINISHED"


def test_a_second_ctrl_c_leaves_at_once_without_saving(settings: Settings, tmp_path: Path) -> None:
    with signals_at({5: [signal.SIGINT, signal.SIGINT]}), pytest.raises(KeyboardInterrupt):
        train(tiny_config(settings()))
    assert checkpoint_steps(tmp_path / "run") == []
    assert json.loads((tmp_path / "run" / "events.jsonl").read_text().splitlines()[-1])["status"] == "KILLED"
    assert train_here(settings())[0] == 0


def test_a_signal_while_the_run_is_being_set_up_saves_the_start(
    monkeypatch: pytest.MonkeyPatch, settings: Settings, tmp_path: Path
) -> None:
    def interrupted(*_: object) -> list[str]:
        signal.raise_signal(signal.SIGINT)
        return []

    with monkeypatch.context() as patched:
        patched.setattr("parallax.train.command.describe_start", interrupted)
        assert train_here(settings())[0] == 130
    assert checkpoint_steps(tmp_path / "run") == [0]
    assert train_here(settings())[0] == 0
    train_here(settings(run="uninterrupted"))
    assert_same_run(tmp_path / "run", tmp_path / "uninterrupted", step=12)


def test_the_handlers_of_before_are_put_back() -> None:
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    with StopRequest() as stop:
        assert signal.getsignal(signal.SIGINT) != before[signal.SIGINT]
        assert (stop.signal, stop.exit_code) == (None, 0)
        signal.raise_signal(signal.SIGTERM)
        assert (stop.signal, stop.exit_code) == (signal.SIGTERM, 143)
    assert {number: signal.getsignal(number) for number in before} == before


def test_a_signal_that_is_ignored_already_stays_ignored() -> None:
    """`nohup` asks for that."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with StopRequest() as stop:
            signal.raise_signal(signal.SIGHUP)
            assert stop.signal is None
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)
