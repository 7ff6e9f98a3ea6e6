import json
import math
import os
import resource

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from parallax.errors import DiskFullError, RunError
from parallax.metrics.journal import Journal, read_journal

LINE = {"step": 1, "tokens": 512, "flops": 1.5e9, "seconds": 0.25, "loss": 5.5, "lr": 1e-3, "grad_norm": 1.0}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "journal.jsonl"


def fill(path, steps):
    journal = Journal(path)
    for step in steps:
        journal.append({**LINE, "step": step})
    journal.close()
    return path.read_bytes()


def steps_of(path):
    return [record["step"] for record in read_journal(path)]


def test_what_is_appended_is_read_back_with_the_time_it_was_written(path):
    journal = Journal(path)
    written = journal.append({**LINE, "val_loss": 5.75})
    assert read_journal(path) == [written]
    assert {**LINE, "val_loss": 5.75}.items() <= written.items()
    assert abs(written["time"] - path.stat().st_mtime) < 5


def test_a_journal_goes_on_where_it_ended(path):
    fill(path, [1, 2])
    fill(path, [3])
    assert steps_of(path) == [1, 2, 3]


def test_a_missing_journal_is_empty(path):
    assert read_journal(path) == []


def test_numbers_that_json_cannot_hold_become_null(path):
    Journal(path).append({"step": 1, "loss": math.nan, "grad_norm": math.inf, "lr": -math.inf})
    text = path.read_text()
    assert not {"NaN", "Infinity"} & set(text.replace("-", "").replace(":", ",").split(","))
    record = read_journal(path)[0]
    assert (record["loss"], record["grad_norm"], record["lr"]) == (None, None, None)


@given(value=st.floats(allow_nan=False, allow_infinity=False))
@settings(max_examples=50, deadline=None)
def test_every_float_survives_bit_for_bit(tmp_path_factory, value):
    path = tmp_path_factory.mktemp("floats") / "journal.jsonl"
    Journal(path).append({"step": 1, "loss": value})
    assert read_journal(path)[0]["loss"].hex() == value.hex()


@pytest.mark.parametrize("record", [{"loss": 1.0}, {"step": 1.0}, {"step": True}, {"step": "1"}])
def test_a_line_without_an_integer_step_is_refused(path, record):
    with pytest.raises(TypeError, match="step="):
        Journal(path).append(record)
    assert path.read_bytes() == b""


def test_a_line_is_on_the_disk_when_append_returns(path, monkeypatch):
    synced = []
    fsync = os.fsync
    monkeypatch.setattr(os, "fsync", lambda fd: (fsync(fd), synced.append(os.fstat(fd).st_size)))
    Journal(path).append(LINE)
    assert synced[-1] == path.stat().st_size > 0


@given(cut=st.integers(min_value=0))
@settings(max_examples=40, deadline=None)
def test_a_line_torn_anywhere_is_left_out_and_the_next_one_starts_clean(tmp_path_factory, cut):
    path = tmp_path_factory.mktemp("torn") / "journal.jsonl"
    whole = fill(path, [1, 2, 3])
    kept = cut % (len(whole) + 1)
    path.write_bytes(whole[:kept])
    complete = sum(1 for line in whole[:kept].split(b"\n") if line.endswith(b"}"))
    assert steps_of(path) == [1, 2, 3][:complete]
    fill(path, [9])
    assert steps_of(path) == [*[1, 2, 3][:complete], 9]


@pytest.mark.parametrize(
    "damage", [b'{"step": 2, "lo', b"\x00\x00\x00", b"[1]", b'{"loss": 1.0}', b"", b"\xff\xfe"]
)
def test_a_damaged_line_in_the_middle_is_named_and_nothing_is_changed(path, damage):
    fill(path, [1])
    path.write_bytes(path.read_bytes() + damage + b"\n" + b'{"step":3}\n')
    before = path.read_bytes()
    with pytest.raises(RunError, match=r"journal\.jsonl: line 2 is damaged") as caught:
        read_journal(path)
    assert "\n" not in str(caught.value)
    with pytest.raises(RunError, match="line 2"):
        Journal(path).truncate_after(0)
    assert path.read_bytes() == before


def test_a_journal_that_an_editor_left_without_its_line_end_loses_nothing(path):
    path.write_bytes(fill(path, [1, 2]).rstrip(b"\n"))
    assert steps_of(path) == [1, 2]
    fill(path, [3])
    assert steps_of(path) == [1, 2, 3]


def test_truncating_drops_later_steps_keeps_the_others_byte_for_byte_and_appends_behind_them(path):
    whole = fill(path, [1, 2, 3, 4])
    journal = Journal(path)
    journal.truncate_after(2)
    assert path.read_bytes() == b"".join(whole.splitlines(keepends=True)[:2])
    journal.append({**LINE, "step": 3})
    assert steps_of(path) == [1, 2, 3]
    assert list(path.parent.iterdir()) == [path]


def test_truncating_moves_even_a_whole_journal_away_from_whoever_has_it_open(path):
    fill(path, [1, 2])
    left_over = Journal(path)
    journal = Journal(path)
    journal.truncate_after(2)
    left_over.append({"step": 3})
    journal.append({"step": 3, "loss": 1.0})
    assert [record["step"] for record in read_journal(path)] == [1, 2, 3]
    assert read_journal(path)[-1]["loss"] == 1.0


def test_a_full_disk_is_named_and_leaves_whole_lines(path, limited_file_size):
    journal = Journal(path)
    journal.append(LINE)
    before = path.read_bytes()
    limited_file_size(len(before) + 20)
    with pytest.raises(DiskFullError, match=r"journal\.jsonl"):
        journal.append({**LINE, "step": 2})
    limited_file_size(None)
    assert path.read_bytes() == before
    journal.append({**LINE, "step": 2})
    assert steps_of(path) == [1, 2]


@pytest.fixture
def limited_file_size():
    """Lets writes fail past a size, as a full disk does: a part is taken, then an error comes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    def limit(size_bytes):
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft if size_bytes is None else size_bytes, hard))

    yield limit
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_every_line_is_plain_json(path):
    fill(path, range(1, 6))
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [1, 2, 3, 4, 5]
