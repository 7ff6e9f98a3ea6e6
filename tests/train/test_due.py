"""What follows a step."""

from typing import Any

import pytest
from tiny_runs import tiny_config

from parallax.train.due import Due, due_after


def steps_of(what: str, total: int = 12, **changes: Any) -> list[int]:
    names = {"log_every": "train.", "eval_every": "train.", "save_every": "train.", "sample_every": "sample."}
    keys = {names[name] + name.removeprefix("sample_"): value for name, value in changes.items()}
    config = tiny_config({"data.path": "x", "train.eval_every": 0, "train.save_every": 0, **keys})
    return [step for step in range(1, total + 1) if getattr(due_after(step, total, config), what)]


@pytest.mark.parametrize(
    ("what", "name"),
    [("log", "log_every"), ("evaluate", "eval_every"), ("save", "save_every"), ("sample", "sample_every")],
)
def test_each_comes_at_its_multiples_and_at_the_end(what: str, name: str) -> None:
    assert steps_of(what, **{"log_every": 100, name: 5}) == [5, 10, 12]


@pytest.mark.parametrize(("what", "name"), [("evaluate", "eval_every"), ("save", "save_every")])
def test_zero_leaves_only_the_end(what: str, name: str) -> None:
    assert steps_of(what, **{name: 0}) == [12]


def test_without_samples_there_is_none_at_the_end_either() -> None:
    assert steps_of("sample", sample_every=0) == []


@pytest.mark.parametrize("name", ["eval_every", "sample_every"])
def test_where_something_is_measured_a_line_is_logged(name: str) -> None:
    assert steps_of("log", log_every=100, **{name: 4}) == [4, 8, 12]


def test_saving_alone_logs_nothing() -> None:
    assert steps_of("log", log_every=100, save_every=4) == [12]


def test_an_ordinary_step_asks_for_nothing() -> None:
    config = tiny_config({"data.path": "x", "train.log_every": 10})
    assert due_after(1, 100, config) == Due(log=False, evaluate=False, save=False, sample=False)
