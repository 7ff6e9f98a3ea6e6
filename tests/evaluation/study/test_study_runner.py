"""Runs as processes: kept, gone on with, stopped, failed; mostly with a stand-in for training, once in earnest."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from evaluation.study.plan import PlannedRun
from evaluation.study.runner import LocalRunner
from evaluation.study.show import StudyProgress
from evaluation.study.status import Stand, log_of, read_status
from evaluation.study.study import Study, open_study
from parallax.errors import RunError
from parallax.metrics.journal import read_journal


def runs_of(study: Study, seeds: list[int], rate: float = 3e-3) -> list[PlannedRun]:
    return [study.planner.run(study.arms["swap-2"], rate, seed) for seed in seeds]


def carry_out(
    runs: list[PlannedRun], jobs: int = 2, limit_seconds: float = 60.0, console: Console | None = None
) -> Any:
    with StudyProgress(console or Console(), "test", runs) as show:
        return LocalRunner(jobs, limit_seconds, 0, show).run(runs)


def test_runs_that_are_done_are_not_started_again(
    write_study: Any, tmp_path: Path, stand_in_training: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = open_study(write_study(), tmp_path / "out")
    assert [s.val_loss for s in carry_out(runs_of(study, [0, 1, 2])).values()] == [3.0, 3.01, 3.02]
    found = carry_out(runs_of(study, [0, 1, 2, 3]))
    assert [status.stand for status in found.values()] == [Stand.DONE] * 4
    starts = stand_in_training.read_text().split()
    assert sorted(starts) == [f"swap-2-lr0.003-seed{seed}" for seed in range(4)]
    shown = capsys.readouterr().out
    assert "test: 3 of 4 runs are there already" in shown
    assert "done     4/4  swap-2-lr0.003-seed3-" in shown


def test_a_terminal_has_a_bar_with_the_time_left(
    write_study: Any, tmp_path: Path, stand_in_training: Path
) -> None:
    runs = runs_of(open_study(write_study(), tmp_path / "out"), [0, 1, 2, 3, 4, 5])
    screen = StringIO()
    carry_out(runs, console=Console(file=screen, force_terminal=True, width=100))
    assert "test  2/6 runs" in screen.getvalue()
    assert re.search(r"left \d+ min", screen.getvalue())


def test_one_that_fails_is_told_and_the_others_are_done(
    write_study: Any, tmp_path: Path, stand_in_training: Path
) -> None:
    runs = runs_of(open_study(write_study(), tmp_path / "out"), [7, 1, 8, 2])
    with pytest.raises(
        RunError, match=r"1 of 4 runs failed, the others are done; swap-2-lr0.003-seed7-\w+: no luck"
    ):
        carry_out(runs)
    stands = [read_status(run).stand for run in runs]
    assert stands == [Stand.FAILED, Stand.DONE, Stand.DIVERGED, Stand.DONE]
    with pytest.raises(RunError, match="no luck"):
        carry_out(runs)
    # What failed is tried again; what diverged would only do so again.
    starts = stand_in_training.read_text().split()
    assert [starts.count(f"swap-2-lr0.003-seed{seed}") for seed in (7, 1, 8, 2)] == [2, 1, 1, 1]


def test_one_that_a_leftover_still_saves_is_started_again(
    write_study: Any, tmp_path: Path, stand_in_training: Path
) -> None:
    [status] = carry_out(runs_of(open_study(write_study(), tmp_path / "out"), [6])).values()
    assert status.stand is Stand.DONE
    assert len(stand_in_training.read_text().split()) == 2


def test_one_that_takes_too_long_is_stopped(write_study: Any, tmp_path: Path, stand_in_training: Path) -> None:
    runs = runs_of(open_study(write_study(), tmp_path / "out"), [9, 1])
    began = time.monotonic()
    with pytest.raises(RunError, match=r"seed9-\w+: stopped after 0.000833 hours at step 6"):
        carry_out(runs, limit_seconds=3.0)
    assert time.monotonic() - began < 30
    assert read_status(runs[1]).stand is Stand.DONE


def test_ctrl_c_stops_what_runs_and_leaves_what_is_done(
    write_study: Any, tmp_path: Path, stand_in_training: Path
) -> None:
    runs = runs_of(open_study(write_study(), tmp_path / "out"), [1, 9])

    sent: list[float] = []

    def interrupt() -> None:
        wait_until(lambda: read_status(runs[0]).is_over and read_status(runs[1]).step > 0)
        sent.append(time.monotonic())
        os.kill(os.getpid(), signal.SIGINT)

    watcher = threading.Thread(target=interrupt)
    watcher.start()
    with pytest.raises(KeyboardInterrupt):
        carry_out(runs)
    watcher.join()
    assert time.monotonic() - sent[0] < 30, "asked, not waited for until it is killed"
    assert [read_status(run).stand for run in runs] == [Stand.DONE, Stand.PARTIAL]
    assert not processes_that_name(runs[1].folder)


CHECKOUT = Path(__file__).parents[3]
_DRIVER = """
import sys
from pathlib import Path
from rich.console import Console
from evaluation.study.study import open_study
from evaluation.study.runner import LocalRunner
from evaluation.study.show import StudyProgress
study = open_study(Path(sys.argv[1]), Path(sys.argv[2]))
runs = [study.planner.run(study.arms[arm], 1e-3, 0) for arm in ("short", "long")]
with StudyProgress(Console(), "test", runs) as show:
    LocalRunner(1, 300, 0, show).run(runs)
"""


@pytest.mark.slow
def test_after_kill_9_the_same_command_keeps_what_is_done_and_goes_on_from_the_checkpoint(
    write_study: Any, tmp_path: Path
) -> None:
    arms = {"short": {"train.max_steps": 2}, "long": {"train.max_steps": 100, "train.save_every": 10}}
    file = write_study({"arms": arms})
    study = open_study(file, tmp_path / "out")
    short, long = (study.planner.run(study.arms[arm], 1e-3, 0) for arm in arms)
    with drive(file, tmp_path) as driver:
        wait_until(lambda: len(list(long.folder.glob("checkpoints/step-*"))) > 0)
        driver.kill()
        driver.wait()
    wait_until(lambda: not processes_that_name(long.folder), seconds=60)
    assert read_status(short).stand is Stand.DONE
    assert read_status(long).stand is Stand.PARTIAL
    before = short.folder.joinpath("journal.jsonl").read_bytes()
    with drive(file, tmp_path) as driver:
        assert driver.wait(timeout=200) == 0
    assert short.folder.joinpath("journal.jsonl").read_bytes() == before
    assert log_of(short).read_text().count("--- ") == 1
    assert log_of(long).read_text().count("--- ") == 2
    assert "resume   after step " in log_of(long).read_text()
    assert read_status(long).step == 100
    steps = [record["step"] for record in read_journal(long.folder / "journal.jsonl")]
    assert steps == list(range(2, 101, 2))


def drive(file: Path, folder: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", _DRIVER, str(file), str(folder / "out")])


def processes_that_name(folder: Path) -> list[int]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if str(folder) in path.read_text(errors="replace"):
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found


def wait_until(holds: Callable[[], bool], seconds: float = 120.0) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.mark.skipif(not Path("/proc/self/autogroup").exists(), reason="needs Linux's autogroups")
def test_a_run_gives_way_to_other_sessions_too(tmp_path: Path) -> None:
    # Turned into this program instead of the training, it says what it has come down to.
    package = tmp_path / "parallax"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "train.py").write_text(
        "import os\nprint(os.nice(0), open('/proc/self/autogroup').read().split()[-1])\n"
    )
    command = [sys.executable, "-m", "evaluation.study.child", "7", str(os.getpid())]
    environment = os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{CHECKOUT}"}
    done = subprocess.run(
        command, env=environment, cwd=tmp_path, start_new_session=True, capture_output=True, text=True, timeout=60
    )
    came_down = str(os.nice(0) + 7)
    assert done.stdout.split() == [came_down, came_down], done.stderr
