"""What MLflow, TensorBoard and the run's folder hold of a run when it has ended."""

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny_runs import finish, measured, num_lines, start, train_here, wait_until

from parallax.data.corpus import Corpus

Settings = Callable[..., dict[str, Any]]
FAILING = {"optim.lr": 1e30, "optim.warmup_steps": 0, "train.eval_every": 0}


def tracked(store: Path, **changes: Any) -> dict[str, Any]:
    uri = {"tracking.uri": f"sqlite:///{store}", "tracking.experiment": "tests"}
    return {"tracking.mlflow": True, "tracking.tensorboard": True, "run.name": "told", **uri, **changes}


def mlflow_runs(store: Path) -> list[Any]:
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{store}")
    [experiment] = [e for e in client.search_experiments() if e.name == "tests"]
    return list(client.search_runs([experiment.experiment_id]))


@pytest.mark.slow
def test_a_run_that_was_killed_and_stopped_is_one_mlflow_run_with_every_line_once(
    settings: Settings, tmp_path: Path, corpus: Path
) -> None:
    from mlflow import MlflowClient

    store, log = tmp_path / "mlflow.db", tmp_path / "log.txt"
    run = settings({**tracked(store), "train.max_steps": 25, "train.save_every": 5, "sample.every": 10})
    process = start(run, log)
    wait_until(lambda: num_lines(tmp_path / "run") >= 8, process)
    process.kill()
    process.join()
    process = start(run, log)
    wait_until(lambda: num_lines(tmp_path / "run") >= 15, process)
    os.kill(process.pid, signal.SIGINT)  # type: ignore[arg-type]
    assert finish(process) == 130
    [stopped] = mlflow_runs(store)
    assert stopped.info.status == "KILLED"
    assert finish(start(run, log)) == 0

    [told] = mlflow_runs(store)
    assert told.info.status == "FINISHED"
    assert told.info.run_name == "told"
    assert told.data.params["optim.lr"] == "0.01"
    assert told.data.params["model.num_tracks"] == "2"
    assert told.data.params["train.precision"] == "fp32"
    tags = told.data.tags
    assert tags["data.fingerprint"] == Corpus.open(corpus).fingerprint
    assert tags["tokenizer.fingerprint"] == Corpus.open(corpus).meta.tokenizer_fingerprint
    assert tags.keys() >= {"host", "python", "torch", "parallax", "command", "device"}

    client = MlflowClient(tracking_uri=f"sqlite:///{store}")
    for key in ("loss", "grad_norm", "lr", "tokens", "val_loss"):
        points = client.get_metric_history(told.info.run_id, key)
        expected = {record["step"]: record[key] for record in measured(tmp_path / "run") if key in record}
        assert sorted(point.step for point in points) == list(expected), "every line once"
        assert {point.step: point.value for point in points} == pytest.approx(expected)
    artifacts = {item.path for item in client.list_artifacts(told.info.run_id)}
    assert artifacts >= {"config.yaml", "curve.png", "sample"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "code", "status"),
    [(FAILING, 2, "FAILED"), ({"train.goal.max_loss": 1e-9}, 1, "FAILED"), ({}, 0, "FINISHED")],
)
def test_the_status_is_what_truly_happened(
    changes: dict[str, Any], code: int, status: str, settings: Settings, tmp_path: Path
) -> None:
    store = tmp_path / "mlflow.db"
    run = settings({**tracked(store), "train.max_steps": 3, **changes})
    assert finish(start(run, tmp_path / "log.txt")) == code
    [told] = mlflow_runs(store)
    assert told.info.status == status
    events = [json.loads(line) for line in (tmp_path / "run" / "events.jsonl").read_text().splitlines()]
    assert [(event["event"], event.get("status")) for event in events] == [("start", None), ("end", status)]


def test_tensorboard_has_the_journal_and_the_picture_is_drawn(settings: Settings, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = settings({"tracking.tensorboard": True, "sample.every": 6})
    assert finish(start(run, tmp_path / "log.txt")) == 0
    found = EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    found.Reload()
    assert {"loss", "val_loss", "lr", "grad_norm"} <= set(found.Tags()["scalars"])
    losses = {event.step: event.value for event in found.Scalars("loss")}
    assert losses == pytest.approx({record["step"]: record["loss"] for record in measured(tmp_path / "run")})
    assert "sample/text_summary" in found.Tags()["tensors"]
    assert (tmp_path / "run" / "curve.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("error", "said"),
    [(MemoryError(), "MemoryError"), (ImportError("libfreetype.so: cannot\nmap"), "libfreetype.so: cannot map")],
)
def test_a_complete_run_whose_curve_cannot_be_drawn_says_so_and_succeeds(
    error: Exception, said: str, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def draw(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("parallax.train.tracking.save_curve_png", draw)
    code, shown = train_here(settings({"train.max_steps": 3}))
    assert code == 0
    assert f"the curve was not drawn ({said}); the journal has it" in " ".join(shown.split())
    assert len(measured(tmp_path / "run")) == 3
    events = [json.loads(line) for line in (tmp_path / "run" / "events.jsonl").read_text().splitlines()]
    assert events[-1]["status"] == "FINISHED"


@pytest.mark.slow
def test_a_tracker_that_cannot_be_used_does_not_stop_the_run(settings: Settings, tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    run = settings({"tracking.mlflow": True, "tracking.uri": "nonsense://nowhere", "train.max_steps": 3})
    assert finish(start(run, log)) == 0
    assert len(measured(tmp_path / "run")) == 3
    assert "mlflow" in log.read_text()
    assert "Traceback" not in log.read_text()
