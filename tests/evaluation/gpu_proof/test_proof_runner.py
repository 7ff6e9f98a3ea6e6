"""A check that raises, crashes or hangs keeps the rows it had, gets one that failed, and harms no other."""

import time
from pathlib import Path

import psutil
import pytest

from evaluation.gpu_proof.checks import Check
from evaluation.gpu_proof.rows import Row, equal
from evaluation.gpu_proof.runner import run_check

pytestmark = pytest.mark.slow  # each starts a process that imports torch


@pytest.fixture(autouse=True)
def _found_by_children(monkeypatch: pytest.MonkeyPatch) -> None:
    root = Path(__file__).parents[3]
    monkeypatch.setenv("PYTHONPATH", f"{root}:{Path(__file__).parent}")


def run(name: str, seconds: float = 120) -> tuple[list[Row], list[str]]:
    said: list[str] = []
    check = Check(name, name, f"fake_checks:{name}", seconds)
    return list(run_check(check, "cpu", True, seconds, said.append)), said


def test_an_error_becomes_a_row_after_those_before_it() -> None:
    rows, said = run("raises")
    assert rows[0] == equal("before the error", 1, 1)
    assert [row.verdict for row in rows] == ["pass", "fail"]
    assert rows[1].reason.startswith("ValueError: broken here (raises, ")
    assert any("what the check prints" in line for line in said), "shown only because it failed"


def test_a_crash_keeps_the_rows_and_names_the_exit_code() -> None:
    rows, said = run("crashes")
    assert [(row.what, row.verdict) for row in rows] == [
        ("before the crash", "pass"),
        ("the check as a whole", "fail"),
    ]
    assert rows[1].reason == "its process ended with code 7"
    assert any("its last words" in line for line in said)


@pytest.mark.timeout(200)
def test_a_hang_is_ended_at_the_limit_with_everything_it_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PROOF_TEST_PID", str(tmp_path / "pid"))
    for seconds in (10, 30, 60):  # a machine under load may not have imported torch before the first
        start = time.monotonic()
        rows, _ = run("hangs", seconds)
        assert time.monotonic() - start < seconds + 60
        if len(rows) > 1:
            break
    assert [row.verdict for row in rows] == ["pass", "fail"]
    assert rows[1].reason.startswith(f"not done after {seconds} s")
    sleeper = int((tmp_path / "pid").read_text())
    assert not psutil.pid_exists(sleeper) or psutil.Process(sleeper).status() == psutil.STATUS_ZOMBIE
