"""A run folder is claimed by one attempt at a time, and what is left of an earlier one writes nothing."""

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from parallax.errors import FencedError, RunError
from parallax.runtime.attempt import Attempt, read_attempt, read_job_facts
from parallax.runtime.files import staged_directory
from parallax.runtime.lock import RunLock

AsAttempt = Callable[[str, int | None], None]


@pytest.fixture
def as_attempt(monkeypatch: pytest.MonkeyPatch) -> AsAttempt:
    """Makes this process part of a start of a Slurm job; None: the first, which Slurm does not number."""

    def become(job: str, restart: int | None) -> None:
        monkeypatch.setenv("SLURM_JOB_ID", job)
        if restart is None:
            monkeypatch.delenv("SLURM_RESTART_COUNT", raising=False)
        else:
            monkeypatch.setenv("SLURM_RESTART_COUNT", str(restart))

    return become


@contextmanager
def held(folder: Path) -> Iterator[RunLock]:
    with RunLock(folder) as lock:
        lock.check()
        yield lock


def test_a_requeued_job_takes_over_from_its_earlier_start_which_is_fenced(
    tmp_path: Path, as_attempt: AsAttempt
) -> None:
    as_attempt("12", None)
    with held(tmp_path) as first:
        as_attempt("12", 1)
        with held(tmp_path) as second:
            assert first.is_lost
            with pytest.raises(FencedError, match=rf"claimed by process {os.getpid()} .* in attempt 12\.1 since"):
                first.check()
            second.check()
            as_attempt("12", 2)
            with held(tmp_path):
                assert first.is_lost
                assert second.is_lost


@pytest.mark.parametrize(("job", "restart"), [("12", 1), ("12", None), ("13", 5)])
def test_no_other_job_and_no_earlier_or_same_start_takes_over(
    job: str, restart: int | None, tmp_path: Path, as_attempt: AsAttempt
) -> None:
    as_attempt("12", 1)
    with held(tmp_path) as lock:
        as_attempt(job, restart)
        with pytest.raises(RunError, match=r"in use by process .* in attempt 12\.1 since"), RunLock(tmp_path):
            pass
        lock.check()


def test_a_person_outside_of_slurm_does_not_take_over(
    tmp_path: Path, as_attempt: AsAttempt, monkeypatch: pytest.MonkeyPatch
) -> None:
    as_attempt("12", None)
    with held(tmp_path):
        monkeypatch.delenv("SLURM_JOB_ID")
        with pytest.raises(RunError, match="in use by process"), RunLock(tmp_path):
            pass


def test_the_new_lock_keeps_others_out_when_the_old_holder_has_gone(tmp_path: Path, as_attempt: AsAttempt) -> None:
    as_attempt("12", 0)
    first = RunLock(tmp_path)
    first.__enter__()
    as_attempt("12", 1)
    with held(tmp_path) as second:
        first.__exit__(None, None, None)
        as_attempt("14", 0)
        with pytest.raises(RunError, match="in use by process"), RunLock(tmp_path):
            pass
        second.check()
    with held(tmp_path):
        assert not list(tmp_path.glob(".incomplete-*"))


def test_where_the_file_system_let_two_have_the_lock_the_first_is_fenced(tmp_path: Path) -> None:
    with held(tmp_path) as first:
        signature = json.loads((tmp_path / ".lock").read_text())
        elsewhere = signature | {"host": "node7", "token": "of another"}
        (tmp_path / ".lock").write_text(json.dumps(elsewhere))
        with pytest.raises(FencedError, match=rf"claimed by process {os.getpid()} on node7 since"):
            first.check()


def test_a_lock_file_that_was_deleted_fences_too(tmp_path: Path) -> None:
    with held(tmp_path) as lock:
        (tmp_path / ".lock").unlink()
        with held(tmp_path), pytest.raises(FencedError):
            lock.check()
        (tmp_path / ".lock").unlink()
        with pytest.raises(FencedError, match="claimed by another process"):
            lock.check()


def test_a_lock_that_is_not_held_forbids_nothing(tmp_path: Path) -> None:
    lock = RunLock(tmp_path)
    lock.check()
    with lock:
        lock.check()
    lock.check()


def test_a_folder_does_not_get_its_name_once_the_fence_has_fallen(tmp_path: Path, as_attempt: AsAttempt) -> None:
    as_attempt("12", 0)
    target = tmp_path / "step"
    with held(tmp_path) as first:
        with staged_directory(target, replace=True, fence=first.check) as staging:
            (staging / "file").write_text("old")
        as_attempt("12", 1)
        with (
            pytest.raises(FencedError),
            staged_directory(target, replace=True, fence=first.check) as staging,
            RunLock(tmp_path),
        ):
            (staging / "file").write_text("new")
    assert (target / "file").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir() if not path.name.startswith(".lock")] == ["step"]


def test_attempts_are_read_and_ordered(as_attempt: AsAttempt, monkeypatch: pytest.MonkeyPatch) -> None:
    as_attempt("12", None)
    assert read_attempt() == Attempt("12", 0)
    assert Attempt.parse(str(read_attempt())) == Attempt("12", 0)
    as_attempt("12", 3)
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "0")
    monkeypatch.setenv("SLURM_JOB_NODELIST", "node[1-2]")
    facts = read_job_facts()
    assert facts["job_id"] == "12"
    assert facts["restart_count"] == "3"
    assert facts["array_task_id"] == "0"
    assert facts["nodelist"] == "node[1-2]"
    monkeypatch.delenv("SLURM_JOB_ID")
    assert read_attempt() is None
    assert read_job_facts() == {}
    assert [Attempt.parse(text) for text in ("", "None", "12", "12.", ".1", "12.x")] == [None] * 6
