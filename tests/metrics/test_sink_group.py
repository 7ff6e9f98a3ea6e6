import pytest

from parallax.config.sections import TrackingConfig
from parallax.metrics.sinks import registry
from parallax.metrics.sinks.group import SinkGroup
from parallax.metrics.sinks.message import one_line, without_password
from parallax.metrics.sinks.protocol import TrackedRun, measurements
from parallax.metrics.sinks.registry import open_sinks

RECORD = {"step": 3, "time": 1.5, "loss": 2.0}


class Recorder:
    name = "recorder"

    def __init__(self):
        self.calls = []

    def log(self, record):
        self.calls.append(("log", record))

    def text(self, name, step, text):
        self.calls.append(("text", name, step, text))

    def artifact(self, path):
        self.calls.append(("artifact", path))

    def close(self, status):
        self.calls.append(("close", status))


class Failing(Recorder):
    name = "failing"

    def __init__(self, at):
        super().__init__()
        self.at = at

    def log(self, record):
        super().log(record)
        if self.at == "log":
            raise ConnectionError("the server\nis away")

    def close(self, status):
        super().close(status)
        if self.at == "close":
            raise TimeoutError("3 lines were not delivered")


def tracked_run(tmp_path):
    return TrackedRun(name="run", directory=tmp_path, config={}, tags={})


def test_every_sink_gets_everything(tmp_path):
    sinks = [Recorder(), Recorder()]
    warnings = []
    group = SinkGroup(sinks, warnings.append)
    group.log(RECORD)
    group.text("sample", 3, "Once")
    group.artifact(tmp_path)
    group.close("KILLED")
    expected = [("log", RECORD), ("text", "sample", 3, "Once"), ("artifact", tmp_path), ("close", "KILLED")]
    assert [sink.calls for sink in sinks] == [expected, expected]
    assert warnings == []


def test_a_failing_sink_is_dropped_with_one_line_and_the_others_go_on():
    failing, healthy = Failing("log"), Recorder()
    warnings = []
    group = SinkGroup([failing, healthy], warnings.append)
    for _ in range(3):
        group.log(RECORD)
    group.close("FINISHED")
    assert warnings == [
        "failing: ConnectionError: the server is away; the run goes on without it, its journal is complete"
    ]
    assert len(failing.calls) == 1
    assert len(healthy.calls) == 4


def test_a_sink_that_fails_to_close_warns_too():
    warnings = []
    group = SinkGroup([Failing("close")], warnings.append)
    group.close("FINISHED")
    assert len(warnings) == 1
    assert "3 lines were not delivered" in warnings[0]


def test_an_interrupt_is_not_taken_for_a_failing_sink():
    class Interrupted(Recorder):
        def log(self, record):
            raise KeyboardInterrupt

    group = SinkGroup([Interrupted()], print)
    with pytest.raises(KeyboardInterrupt):
        group.log(RECORD)


def test_the_configuration_decides_which_sinks_open(tmp_path, monkeypatch):
    run = tracked_run(tmp_path)
    monkeypatch.setitem(
        registry.SINKS, "mlflow", lambda run, tracking, warn: Recorder() if tracking.mlflow else None
    )
    monkeypatch.setitem(
        registry.SINKS, "tensorboard", lambda run, tracking, warn: Recorder() if tracking.tensorboard else None
    )
    for mlflow, tensorboard in [(True, True), (True, False), (False, False)]:
        group = open_sinks(run, TrackingConfig(mlflow=mlflow, tensorboard=tensorboard), print)
        assert len(group.names) == mlflow + tensorboard


def test_nothing_opens_when_everything_is_off(tmp_path):
    group = open_sinks(tracked_run(tmp_path), TrackingConfig(mlflow=False, tensorboard=False), print)
    assert group.names == []
    assert list(tmp_path.iterdir()) == []


def test_a_sink_that_cannot_open_warns_and_the_others_open(tmp_path, monkeypatch):
    def broken(run, tracking, warn):
        raise ModuleNotFoundError("No module named 'mlflow'")

    monkeypatch.setitem(registry.SINKS, "mlflow", broken)
    monkeypatch.setitem(registry.SINKS, "tensorboard", lambda run, tracking, warn: Recorder())
    warnings = []
    group = open_sinks(tracked_run(tmp_path), TrackingConfig(), warnings.append)
    assert group.names == ["recorder"]
    assert len(warnings) == 1
    assert warnings[0].startswith("mlflow: ModuleNotFoundError: No module named 'mlflow'; the run goes on")


def test_measurements_are_the_numbers_of_a_line():
    record = {"step": 1, "time": 2.0, "loss": 3, "lr": 0.5, "note": "x", "val_loss": None, "done": True}
    assert dict(measurements(record)) == {"loss": 3.0, "lr": 0.5}


def test_a_long_error_becomes_one_short_line():
    assert one_line(ValueError("a\n b")) == "ValueError: a b"
    assert one_line(ValueError()) == "ValueError"
    assert len(one_line(ValueError("x" * 10_000))) < 300


def test_passwords_are_not_shown():
    assert without_password("postgresql://me:pw@db/mlflow") == "postgresql://db/mlflow"
    assert without_password("sqlite:////tmp/a.db") == "sqlite:////tmp/a.db"
    assert one_line(ValueError("GET http://me:pw@host/x failed")) == "ValueError: GET http://host/x failed"
