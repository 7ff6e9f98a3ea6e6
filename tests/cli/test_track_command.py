"""`parallax track sync`: a store that missed a run, or a part of it, has all of it once."""

import errno
import json
from pathlib import Path

import pytest
from small_world import Parallax

from evaluation.tracking.refusing import refusing_server
from parallax.config.load import check_config, dump_config
from parallax.metrics.journal import Journal
from parallax.runtime.lock import RunLock

SMALL = {"num_layers": 1, "num_heads": 2, "num_kv_heads": 1, "hidden_size": 8, "intermediate_size": 12}


@pytest.fixture
def store(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/mlflow.db"


@pytest.fixture
def run(tmp_path: Path, store: str) -> Path:
    """A run that ended while no store was there."""
    path = tmp_path / "run"
    path.mkdir()
    raw = {
        "run": {"name": "late", "dir": str(path)},
        "model": SMALL | {"vocab_size": 13, "max_seq_len": 6},
        "data": {"path": "nowhere"},
        "train": {"max_steps": 30, "global_batch": 2},
        "tracking": {"uri": store, "experiment": "late runs"},
    }
    (path / "config.yaml").write_text(dump_config(check_config(raw, source="the test")))
    (path / "state").write_text("done -\n")
    write_lines(path, range(1, 31))
    return path


def write_lines(run: Path, steps: range) -> None:
    journal = Journal(run / "journal.jsonl")
    for step in steps:
        journal.append({"step": step, "loss": 3.0 - step / 100} | ({"val_loss": 2.5} if step % 10 == 0 else {}))
    journal.close()


def write_samples(run: Path) -> None:
    """What one node has sampled of itself, with a line spoilt."""
    samples = [{"step": n, "time": 100.0 + n, "cpu_utilization_percentage": 50.0} for n in range(3)]
    lines = [json.dumps(sample) for sample in samples]
    (run / "system").mkdir()
    (run / "system" / "node-a.jsonl").write_text("\n".join([lines[0], "{oops", *lines[1:]]) + "\n")


def steps_in(store: str, run: Path, key: str) -> list[int]:
    from mlflow import MlflowClient

    run_id = json.loads((run / "mlflow_run.json").read_text())["run_id"]
    return [metric.step for metric in MlflowClient(store).get_metric_history(run_id, key)]


def test_what_is_missing_is_sent_once(parallax: Parallax, run: Path, store: str) -> None:
    from mlflow import MlflowClient

    write_samples(run)
    first = parallax("track", "sync", run)
    assert first.code == 0, first.err
    assert f"{run}: 30 journal lines, 3 system samples, FINISHED, in {store} as " in first.out
    assert first.err == f"{run}/system/node-a.jsonl: line 2 is damaged: found '{{oops'; skipped\n"
    write_lines(run, range(31, 41))
    ids = {parallax("track", "sync", run, "--json").json[str(run)]["run_id"] for _ in range(2)}
    assert len(ids) == 1
    assert steps_in(store, run, "loss") == list(range(1, 41))
    assert steps_in(store, run, "val_loss") == [10, 20, 30, 40]
    assert steps_in(store, run, "system/node-a/cpu_utilization_percentage") == [0, 1, 2]
    kept = MlflowClient(store).get_run(ids.pop())
    assert kept.info.status == "FINISHED"
    assert kept.data.params["model.hidden_size"] == "8"


def test_a_run_that_is_stopped_or_died_is_not_called_finished(parallax: Parallax, run: Path) -> None:
    for word, status in (("stopped 7.0", "KILLED"), ("running 7.0", "FAILED")):
        (run / "state").write_text(f"{word}\n")
        assert parallax("track", "sync", run, "--json").json[str(run)]["status"] == status


def test_mistakes_are_one_line_and_change_nothing(parallax: Parallax, run: Path, tmp_path: Path) -> None:
    before = sorted(path.name for path in run.iterdir())
    absent = parallax("track", "sync", run, "--uri", "http://127.0.0.1:9")
    assert (absent.code, absent.err.count("\n")) == (2, 1)
    assert "did not take" in absent.err
    assert "the same command sends what is missing" in absent.err
    nothing = parallax("track", "sync", tmp_path / "nothing")
    assert nothing.code == 2
    assert "no run lives here" in nothing.err
    with RunLock(run):
        busy = parallax("track", "sync", run)
    assert busy.code == 2
    assert str(run) in busy.err
    lines = (run / "journal.jsonl").read_text().splitlines()
    (run / "journal.jsonl").write_text("\n".join([*lines[:4], "{oops", *lines[4:]]) + "\n")
    damaged = parallax("track", "sync", run)
    assert damaged.code == 2
    assert "line 5 is damaged" in damaged.err
    assert sorted(path.name for path in run.iterdir() if path.name != ".lock") == before


@pytest.mark.parametrize("status", [401, 403])
def test_a_store_that_refuses_is_one_line_that_names_the_credentials(
    status: int, parallax: Parallax, run: Path
) -> None:
    with refusing_server(status, "who are you?") as uri:
        refused = parallax("track", "sync", run, "--uri", uri)
    assert (refused.code, refused.err.count("\n")) == (2, 1)
    assert f"{uri} did not take {run}: refused with {status} (who are you?)" in refused.err
    assert "MLFLOW_TRACKING_USERNAME" in refused.err


def test_samples_and_the_configuration_are_sent_too(parallax: Parallax, run: Path, store: str) -> None:
    from mlflow import MlflowClient

    journal = Journal(run / "journal.jsonl")
    journal.append({"step": 31, "loss": 1.0, "sample": "Once upon"})
    journal.close()
    run_id = parallax("track", "sync", run, "--json").json[str(run)]["run_id"]
    client = MlflowClient(store)
    assert [item.path for item in client.list_artifacts(run_id)] == ["config.yaml", "sample"]
    assert [item.path for item in client.list_artifacts(run_id, "sample")] == ["sample/step-00000031.txt"]


def test_lines_and_the_runs_end_arrive_where_there_is_no_room_for_files(
    parallax: Parallax, run: Path, store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow import MlflowClient

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(MlflowClient, "log_artifact", full)
    refused = parallax("track", "sync", run)
    assert (refused.code, refused.err.count("\n")) == (2, 1)
    assert "No space left on device; the same command sends what is missing" in refused.err
    assert steps_in(store, run, "loss") == list(range(1, 31))
    run_id = json.loads((run / "mlflow_run.json").read_text())["run_id"]
    assert MlflowClient(store).get_run(run_id).info.status == "FINISHED"
