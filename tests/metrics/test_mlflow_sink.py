import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from parallax.config.sections import TrackingConfig
from parallax.errors import BackendError
from parallax.metrics.sinks.group import SinkGroup
from parallax.metrics.sinks.mlflow import MlflowSink
from parallax.metrics.sinks.mlflow_run import MlflowRun, resolve_uri
from parallax.metrics.sinks.protocol import TrackedRun
from parallax.metrics.system_files import node_file

CONFIG = {
    "seed": 0,
    "run": {"name": "tiny"},
    "train": {"max_steps": 100, "goal": None},
    "optim": {"betas": [0.9, 0.95]},
}


@pytest.fixture(scope="module")
def first_run(tmp_path_factory):
    """A run on a store that did not exist; one for the module, since its tables take seconds to make."""
    folder = tmp_path_factory.mktemp("first")
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        session = Session(f"sqlite:///{folder}/deep/mlflow.db", folder)
        session.open().close("FINISHED")
    session.printed = printed.getvalue()
    return session


@pytest.fixture
def store(first_run):
    return first_run.store


@pytest.fixture
def client(store):
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=store)


@pytest.fixture
def session(store, tmp_path):
    return Session(store, tmp_path)


class Session:
    """A run folder and the sinks opened on it, one after the other as restarts do."""

    def __init__(self, store, folder):
        self.store = store
        self.folder = folder
        self.warnings = []

    def open(
        self, history=(), resumed_step=None, config=CONFIG, tags=None, close_seconds=30.0, uri=None, look=0.1
    ):
        run = TrackedRun(
            name="tiny",
            directory=self.folder,
            config=config,
            tags=tags or {},
            history=history,
            resumed_step=resumed_step,
        )
        tracking = TrackingConfig(uri=uri or self.store, experiment=self.folder.name, system_interval=look)
        return MlflowSink(run, tracking, self.warnings.append, close_seconds)

    @property
    def run_id(self):
        return json.loads((self.folder / "mlflow_run.json").read_text())["run_id"]


def lines(*steps, **values):
    return [{"step": step, "time": 1000.0 + step, "loss": step / 10, **values} for step in steps]


def history_of(client, run_id, key="loss"):
    return [(metric.step, metric.value) for metric in client.get_metric_history(run_id, key)]


def test_a_run_is_recorded_with_its_metrics_parameters_tags_and_end(session, client):
    (session.folder / "config.yaml").write_text("seed: 0\n")
    sink = session.open(tags={"git.commit": "abc", "data.fingerprint": "f00"})
    for line in lines(10, 20, val_loss=1.5, note="text", done=True, z=None):
        sink.log(line)
    sink.text("sample", 20, "Once upon")
    sink.close("FINISHED")
    run = client.get_run(session.run_id)
    assert (run.info.status, run.info.run_name) == ("FINISHED", "tiny")
    assert history_of(client, session.run_id) == [(10, 1.0), (20, 2.0)]
    assert set(run.data.metrics) == {"loss", "val_loss"}
    assert client.get_metric_history(session.run_id, "loss")[0].timestamp == 1_010_000
    assert run.data.params == {
        "seed": "0",
        "run.name": "tiny",
        "train.max_steps": "100",
        "train.goal": "null",
        "optim.betas": "[0.9, 0.95]",
    }
    tags = run.data.tags
    assert (tags["git.commit"], tags["mlflow.source.git.commit"], tags["data.fingerprint"]) == (
        "abc",
        "abc",
        "f00",
    )
    assert sorted(item.path for item in client.list_artifacts(session.run_id)) == ["config.yaml", "sample"]
    assert client.list_artifacts(session.run_id, "sample")[0].path == "sample/step-00000020.txt"
    assert session.warnings == []


@pytest.mark.parametrize("status", ["FAILED", "KILLED"])
def test_the_true_end_is_stated(session, client, status):
    sink = session.open()
    sink.close(status)
    assert client.get_run(session.run_id).info.status == status


def test_artifacts_of_a_sqlite_store_lie_beside_it(session, client, store):
    picture = session.folder / "curve.png"
    picture.write_bytes(b"png")
    sink = session.open()
    sink.artifact(picture)
    sink.close("FINISHED")
    root = store.removeprefix("sqlite:///").replace("mlflow.db", "mlartifacts")
    assert client.get_run(session.run_id).info.artifact_uri.startswith(f"file://{root}/")
    assert [item.path for item in client.list_artifacts(session.run_id)] == ["curve.png"]


def test_a_restart_goes_on_in_the_same_run_without_gaps_or_duplicates(session, client):
    first = session.open()
    for line in lines(10, 20, 30):
        first.log(line)
    first.close("KILLED")
    run_id = session.run_id
    # The journal has a line, 40, that died on its way; the checkpoint is of step 20.
    second = session.open(history=lines(10, 20), resumed_step=20)
    for line in lines(30, 40, 50):
        second.log({**line, "time": 9000.0})
    second.close("FINISHED")
    assert session.run_id == run_id
    assert history_of(client, run_id) == [(10, 1.0), (20, 2.0), (30, 3.0), (40, 4.0), (50, 5.0)]
    assert client.get_run(run_id).info.status == "FINISHED"


def test_a_restart_sends_what_the_journal_has_and_the_store_has_not(session, client):
    first = session.open()
    first.log(lines(10)[0])
    first.close("KILLED")
    second = session.open(history=lines(10, 20, 30), resumed_step=30)
    second.log(lines(40)[0])
    second.close("FINISHED")
    assert [step for step, _ in history_of(client, session.run_id)] == [10, 20, 30, 40]


def test_a_value_measured_after_the_line_of_its_step_is_kept(session, client):
    sink = session.open()
    sink.log(lines(10)[0])
    sink.log({"step": 10, "time": 1.0, "val_loss": 5.0})
    sink.close("KILLED")
    second = session.open(history=[*lines(10), {"step": 10, "time": 1.0, "val_loss": 5.0}], resumed_step=10)
    second.close("FINISHED")
    assert history_of(client, session.run_id, "loss") == [(10, 1.0)]
    assert history_of(client, session.run_id, "val_loss") == [(10, 5.0)]


def test_a_resumed_run_says_running_while_it_runs(session, client):
    session.open().close("KILLED")
    sink = session.open(resumed_step=1)
    sink.log(lines(10)[0])
    wait_until(lambda: client.get_run(session.run_id).data.metrics)
    assert client.get_run(session.run_id).info.status == "RUNNING"
    sink.close("FINISHED")


def test_a_changed_parameter_is_told_in_a_tag(session, client):
    session.open().close("KILLED")
    longer = CONFIG | {"train": {"max_steps": 200, "goal": None}, "extra": {"new": True}}
    session.open(config=longer, resumed_step=1).close("FINISHED")
    data = client.get_run(session.run_id).data
    assert data.params["train.max_steps"] == "100"
    assert data.tags["changed.train.max_steps"] == "200"
    assert data.params["extra.new"] == "true"
    assert sum(key.startswith("changed.") for key in data.tags) == 1


@pytest.mark.parametrize("loss", ["deleted", "unknown to this store"])
def test_a_run_that_the_store_no_longer_has_is_made_anew_from_the_journal(session, client, loss):
    session.open().close("KILLED")
    old = session.run_id
    if loss == "deleted":
        client.delete_run(old)
    else:
        (session.folder / "mlflow_run.json").write_text(json.dumps({"run_id": "0" * 32}))
        old = "0" * 32
    session.open(history=lines(10, 20), resumed_step=20).close("FINISHED")
    assert session.run_id != old
    assert [step for step, _ in history_of(client, session.run_id)] == [10, 20]


def test_a_damaged_run_file_is_named_and_the_run_goes_on(session):
    (session.folder / "mlflow_run.json").write_text("{")
    group = SinkGroup([session.open()], session.warnings.append)
    group.close("FINISHED")
    assert len(session.warnings) == 1
    assert "mlflow_run.json: holds no run_id; delete it" in session.warnings[0]


def add_sample(session, node, number, value):
    path = node_file(session.folder, node)
    path.parent.mkdir(exist_ok=True)
    with path.open("a") as file:
        file.write(json.dumps({"step": number, "time": 50.0 + number, "cpu_utilization_percentage": value}) + "\n")


def test_what_nodes_sample_arrives_while_the_run_is_silent_and_once_over_restarts(session, client):
    sink = session.open()
    add_sample(session, "a", 0, 10.0)
    wait_until((session.folder / "mlflow_run.json").exists)
    wait_until(lambda: "system/a/cpu_utilization_percentage" in client.get_run(session.run_id).data.metrics)
    add_sample(session, "b", 0, 70.0)
    add_sample(session, "a", 1, 20.0)
    sink.close("KILLED")
    second = session.open(resumed_step=1, look=60.0)
    second.log(lines(10)[0])
    wait_until(lambda: "loss" in client.get_run(session.run_id).data.metrics)
    add_sample(session, "a", 2, 30.0)
    second.close("FINISHED")
    known = [(0, 10.0), (1, 20.0), (2, 30.0)]
    assert history_of(client, session.run_id, "system/a/cpu_utilization_percentage") == known
    assert history_of(client, session.run_id, "system/b/cpu_utilization_percentage") == [(0, 70.0)]
    [point] = client.get_metric_history(session.run_id, "system/b/cpu_utilization_percentage")
    assert point.timestamp == 50_000
    assert session.warnings == []


@pytest.fixture
def sent(monkeypatch):
    """The metrics of every request, as they arrive at the store."""
    from mlflow import MlflowClient

    requests, log_batch = [], MlflowClient.log_batch

    def record(self, run_id, metrics=(), **others):
        log_batch(self, run_id, metrics=metrics, **others)
        if metrics:
            requests.append([metric.step for metric in metrics])

    monkeypatch.setattr(MlflowClient, "log_batch", record)
    return requests


def test_long_journals_and_large_configurations_fit_into_mlflows_limits(session, client, sent):
    history = [{"step": step, "time": 1.0, **{f"m{i}": 1.0 for i in range(7)}} for step in range(1, 401)]
    config = {"section": {f"key{i}": i for i in range(250)}}
    session.open(history=history, config=config).close("FINISHED")
    assert [step for step, _ in history_of(client, session.run_id, "m6")] == list(range(1, 401))
    assert len(client.get_run(session.run_id).data.params) == 250
    assert [len(metrics) for metrics in sent] == [994, 994, 812]


def test_answers_that_are_lost_lead_to_one_warning_and_no_line_sent_twice(session, client, sent, monkeypatch):
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    log_batch, failures = MlflowClient.log_batch, []

    def lose_the_answer(self, run_id, metrics=(), **others):
        log_batch(self, run_id, metrics=metrics, **others)
        if metrics and len(failures) < 2:
            failures.append(metrics)
            raise MlflowException("connection lost")  # an internal error, as a dead server gives

    monkeypatch.setattr(MlflowClient, "log_batch", lose_the_answer)
    # The pause before the next try is cut short by the end of the run.
    monkeypatch.setattr("parallax.metrics.sinks.mlflow._FIRST_PAUSE_SECONDS", 60.0)
    sink = session.open()
    sink.log(lines(10)[0])
    wait_until(lambda: session.warnings)
    for line in lines(20, 30):
        sink.log(line)
    sink.close("FINISHED")
    assert len(failures) == 2
    assert sent == [[10], [20, 30]]
    assert [step for step, _ in history_of(client, session.run_id)] == [10, 20, 30]
    assert client.get_run(session.run_id).info.status == "FINISHED"
    expected = f"mlflow: {session.store}: MlflowException: connection lost; trying again while the run goes on"
    assert session.warnings == [expected, expected]


def test_lines_are_not_sent_again_because_a_text_beside_them_failed(session, client, sent, monkeypatch):
    from mlflow import MlflowClient

    log_text, failures = MlflowClient.log_text, []

    def fail_once(self, *arguments):
        if not failures:
            failures.append(arguments)
            raise OSError("no route to host")
        log_text(self, *arguments)

    monkeypatch.setattr(MlflowClient, "log_text", fail_once)
    monkeypatch.setattr("parallax.metrics.sinks.mlflow._FIRST_PAUSE_SECONDS", 0.05)
    sink = session.open()
    sink.log(lines(10)[0])
    sink.text("sample", 10, "Once upon")
    sink.close("FINISHED")
    assert len(failures) == 1
    assert sent == [[10]]
    assert len(client.list_artifacts(session.run_id, "sample")) == 1


def test_a_store_that_is_never_there_costs_the_run_nothing_but_two_lines(session, monkeypatch):
    free_port = 9  # discard: nothing listens there
    monkeypatch.setattr("parallax.metrics.sinks.mlflow._FIRST_PAUSE_SECONDS", 0.05)
    uri = f"http://user:secret@127.0.0.1:{free_port}"
    group = SinkGroup([session.open(uri=uri, close_seconds=1.0)], session.warnings.append)
    start = time.thread_time()
    for line in lines(*range(200)):
        group.log(line)
    assert time.thread_time() - start < 0.1
    wait_until(lambda: session.warnings)
    start = time.perf_counter()
    group.close("FINISHED")
    assert time.perf_counter() - start < 5
    assert len(session.warnings) == 2
    assert "trying again" in session.warnings[0]
    assert "the run goes on without it" in session.warnings[1]
    assert not any("secret" in warning for warning in session.warnings)
    assert not (session.folder / "mlflow_run.json").exists()


def test_a_store_that_refuses_ends_the_sink_with_one_line(session, client):
    experiment = client.create_experiment(session.folder.name)
    client.delete_experiment(experiment)
    group = SinkGroup([session.open()], session.warnings.append)
    wait_until(lambda: group.log(lines(10)[0]) or not group.names)
    group.log(lines(20)[0])
    group.close("FINISHED")
    assert len(session.warnings) == 1
    assert f"mlflow: {session.store}: MlflowException" in session.warnings[0]
    assert f"`parallax track sync {session.folder}` sends what is missing" in session.warnings[0]


def test_lines_do_not_pile_up_without_end(session, monkeypatch):
    monkeypatch.setattr("parallax.metrics.sinks.mlflow._MAX_WAITING", 5)
    monkeypatch.setattr(MlflowRun, "__init__", lambda self, *arguments: threading.Event().wait(2))
    sink = session.open(close_seconds=0.1)
    for line in lines(*range(5)):
        sink.log(line)
    with pytest.raises(BackendError, match="not answered for 5 lines"):
        sink.log(lines(6)[0])


def test_making_a_store_prints_and_warns_nothing(first_run, client):
    assert client.get_run(first_run.run_id).info.status == "FINISHED"
    assert (first_run.printed, first_run.warnings) == ("", [])


@pytest.mark.slow
def test_runs_that_start_together_share_a_new_store(tmp_path):
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    folders = [tmp_path / name for name in ("first", "second", "third")]
    processes = [start_one_run(folder, uri) for folder in folders]
    try:
        assert [process.communicate(timeout=120)[0] for process in processes] == ["", "", ""]
    finally:
        for process in processes:
            process.kill()
    sessions = [Session(uri, folder) for folder in folders]
    assert len({session.run_id for session in sessions}) == 3


@pytest.mark.slow
def test_a_run_killed_while_it_makes_a_store_spoils_it_for_nobody(tmp_path):
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    first = start_one_run(tmp_path / "first", uri, DIES_WHILE_IT_MAKES_THE_STORE)
    assert first.communicate(timeout=120)[0] == ""
    assert first.returncode == -signal.SIGKILL
    second = start_one_run(tmp_path / "second", uri)
    assert second.communicate(timeout=120)[0] == ""
    assert Session(uri, tmp_path / "second").run_id
    assert not list(tmp_path.glob("*.new*"))


def start_one_run(folder, uri, before=""):
    return subprocess.Popen(
        [sys.executable, "-c", before + ONE_RUN, folder, uri],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


# MLflow's migrations copy tables under names that a second attempt finds taken.
DIES_WHILE_IT_MAKES_THE_STORE = """
import os, signal
from sqlalchemy import Engine, event

@event.listens_for(Engine, "before_cursor_execute")
def die(connection, cursor, statement, *rest):
    if statement.startswith("INSERT INTO _alembic_tmp_latest_metrics"):
        os.kill(os.getpid(), signal.SIGKILL)
"""


ONE_RUN = """
import sys
from pathlib import Path
from parallax.config.sections import TrackingConfig
from parallax.metrics.sinks.mlflow import MlflowSink
from parallax.metrics.sinks.protocol import TrackedRun

folder = Path(sys.argv[1])
folder.mkdir()
run = TrackedRun(name="tiny", directory=folder, config={}, tags={})
MlflowSink(run, TrackingConfig(uri=sys.argv[2]), print, close_seconds=90).close("FINISHED")
"""


def test_the_configured_store_wins_over_the_environment_and_the_default(monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://server")
    assert resolve_uri("sqlite:///mine.db") == "sqlite:///mine.db"
    assert resolve_uri(None) == "http://server"
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    assert resolve_uri(None) == "sqlite:///runs/mlflow.db"


def wait_until(condition, seconds=20.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "gave up waiting"
        time.sleep(0.02)
