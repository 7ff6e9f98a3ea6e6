from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from parallax.metrics.sinks.protocol import TrackedRun
from parallax.metrics.sinks.tensorboard import TensorBoardSink


@pytest.fixture
def open_sink(tmp_path):
    def build(resumed_step=None):
        return TensorBoardSink(
            TrackedRun(name="run", directory=tmp_path, config={}, tags={}, resumed_step=resumed_step)
        )

    return build


def record(step, **values):
    return {"step": step, "time": 1000.0 + step, **values}


def read(tmp_path):
    events = EventAccumulator(str(tmp_path / "tensorboard"), size_guidance={"tensors": 0, "scalars": 0})
    events.Reload()
    return events


def scalars(tmp_path, key):
    return [(event.step, event.wall_time, event.value) for event in read(tmp_path).Scalars(key)]


def test_numbers_of_a_line_become_scalars_at_its_step_and_time(tmp_path, open_sink):
    sink = open_sink()
    sink.log(record(10, loss=2.5, val_loss=3.0, note="text", grad_norm=None))
    sink.log(record(20, loss=2.25))
    sink.close("FINISHED")
    assert scalars(tmp_path, "loss") == [(10, 1010.0, 2.5), (20, 1020.0, 2.25)]
    assert scalars(tmp_path, "val_loss") == [(10, 1010.0, 3.0)]
    assert set(read(tmp_path).Tags()["scalars"]) == {"loss", "val_loss"}


def test_a_line_is_readable_before_the_run_ends(tmp_path, open_sink):
    sink = open_sink()
    # The library writes its very first events at once, whatever the sink does.
    sink.log(record(10, loss=2.5))
    sink.log(record(20, loss=2.25))
    assert scalars(tmp_path, "loss")[-1] == (20, 1020.0, 2.25)
    sink.close("KILLED")


def test_a_resumed_run_replaces_the_steps_after_its_checkpoint(tmp_path, open_sink):
    first = open_sink()
    for step in (10, 20, 30):
        first.log(record(step, loss=float(step)))
    first.close("KILLED")
    second = open_sink(resumed_step=20)
    for step in (30, 40):
        second.log(record(step, loss=step + 0.5))
    second.close("FINISHED")
    assert [(step, value) for step, _, value in scalars(tmp_path, "loss")] == [
        (10, 10.0),
        (20, 20.0),
        (30, 30.5),
        (40, 40.5),
    ]


def test_a_text_is_kept_as_it_is(tmp_path, open_sink):
    sink = open_sink()
    sink.text("sample", 5, "# not a heading\n*as* written")
    sink.close("FINISHED")
    (event,) = read(tmp_path).Tensors("sample/text_summary")
    assert event.step == 5
    assert "# not a heading\n*as* written" in event.tensor_proto.string_val[0].decode()


def test_artifacts_are_left_where_they_are(tmp_path, open_sink):
    picture = tmp_path / "curve.png"
    picture.write_bytes(b"a picture")
    sink = open_sink()
    sink.artifact(picture)
    sink.artifact(Path("missing.png"))
    sink.close("FINISHED")
    assert picture.read_bytes() == b"a picture"
    assert list(tmp_path.rglob("*.png")) == [picture]
