import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from saved_steps import assert_holds, assert_newest_is, content

from parallax.checkpoint.load import read_checkpoint
from parallax.checkpoint.store import CheckpointStore
from parallax.runtime.files import STAGING_MARK

DRIVER = Path(__file__).parent / "crash_driver.py"
RANDOM_ELEMENTS = 200_000


@pytest.fixture(autouse=True)
def _no_wait_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda _: None)


def _killed_runs(folder: Path, mode: str) -> dict[Path, int]:
    """Run folders that saves were killed in -> the newest step that was surely saved."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    subprocess.run([sys.executable, DRIVER, folder, mode], check=True, timeout=120, env=environment)
    kills = json.loads((folder / "kills.json").read_text())
    return {folder / name: step for name, step in kills.items()}


def test_a_save_killed_at_any_call_leaves_the_old_checkpoint_or_the_new_one(tmp_path: Path) -> None:
    newest = []
    for run in _killed_runs(tmp_path, "boundaries"):
        reports: list[str] = []
        store = CheckpointStore(run, keep_last=1, report=reports.append)
        newest.append(_newest_step(store, {2, 3}))
        best = store.best()
        assert best is not None, run
        assert_holds(read_checkpoint(best), 3 if best == store.path_of(3) else 1)
        assert store.steps() == store.all_steps(), "a folder under a checkpoint's name is not whole"
        assert reports == [], run
        _assert_goes_on(store)
    assert newest == sorted(newest), "a checkpoint that was there was lost"
    assert newest[0] == 2
    assert newest[-1] == 3
    assert len(newest) > 30


@pytest.mark.slow
def test_a_replacement_killed_at_any_call_leaves_good_checkpoints_only(tmp_path: Path) -> None:
    for run in _killed_runs(tmp_path, "replace"):
        store = CheckpointStore(run, keep_last=1, report=lambda _: None)
        _newest_step(store, {2, 3})
        _assert_goes_on(store)


def test_a_save_killed_at_a_random_moment_loses_nothing_that_was_saved(tmp_path: Path) -> None:
    for run, acknowledged in _killed_runs(tmp_path, "random").items():
        reports: list[str] = []
        store = CheckpointStore(run, keep_last=2, report=reports.append)
        path = store.newest_good()
        assert path is not None
        checkpoint = read_checkpoint(path)
        assert_holds(checkpoint, checkpoint.step, RANDOM_ELEMENTS)
        assert checkpoint.step in (acknowledged, acknowledged + 1)
        assert reports == []


def _newest_step(store: CheckpointStore, allowed: set[int]) -> int:
    path = store.newest_good()
    assert path is not None, store.folder
    step = read_checkpoint(path).step
    assert step in allowed, store.folder
    assert_newest_is(store, step)
    return step


def _assert_goes_on(store: CheckpointStore) -> None:
    """The next process clears up, saves the step again, and nothing is left of the killed one."""
    store.clear_leftovers()
    assert not list(store.folder.glob(f"{STAGING_MARK}*"))
    store.save(3, **content(3))
    store.mark_best(3, 1.0)
    assert_newest_is(store, 3)
    assert store.all_steps() == [3], store.folder
