"""`train.profile=START:END` writes a trace of those steps."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny_runs import train_here

Settings = Callable[..., dict[str, Any]]


@pytest.mark.parametrize(("span", "written"), [("2:3", "steps-2-3.json"), ("3:100", "steps-3-4.json")])
def test_a_trace_of_the_span_is_written_as_far_as_the_run_goes(
    span: str, written: str, settings: Settings, tmp_path: Path
) -> None:
    assert train_here(settings({"train.profile": span, "train.max_steps": 4}))[0] == 0
    [trace] = (tmp_path / "run" / "profile").iterdir()
    assert trace.name == written
    names = [event["name"] for event in json.loads(trace.read_text())["traceEvents"]]
    assert names.count("Optimizer.step#AdamW.step") >= 2
    assert "aten::mm" in names


def test_without_a_span_nothing_is_traced(settings: Settings, tmp_path: Path) -> None:
    train_here(settings({"train.max_steps": 2}))
    assert not (tmp_path / "run" / "profile").exists()
