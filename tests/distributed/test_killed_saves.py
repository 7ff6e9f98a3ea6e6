"""A rank that is killed, or a disk that is full, costs the save and nothing that was saved before."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from sharded_steps import assert_newest_is

from parallax.checkpoint.catalogue import CheckpointCatalogue
from parallax.checkpoint.load import read_checkpoint
from parallax.checkpoint.store import CheckpointStore
from parallax.runtime.files import STAGING_MARK

HERE = Path(__file__).parent
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
NAMESPACES = (["unshare", "--mount"], ["unshare", "--user", "--map-root-user", "--mount"])


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(("victim", "fewest_calls"), [(0, 40), (1, 5)])
def test_a_rank_killed_at_any_call_leaves_the_old_checkpoint_or_the_new_one(
    victim: int, fewest_calls: int, tmp_path: Path
) -> None:
    driver = [sys.executable, str(HERE / "sharded_crash_driver.py"), str(tmp_path), str(victim)]
    subprocess.run(driver, check=True, timeout=590, env=ENVIRONMENT, stderr=subprocess.DEVNULL)
    kills = json.loads((tmp_path / "kills.json").read_text())
    newest = []
    for name, statuses in kills.items():
        catalogue = CheckpointCatalogue(tmp_path / name, report=pytest.fail)
        path = catalogue.newest_good()
        assert path is not None, name
        newest.append(read_checkpoint(path).step)
        assert_newest_is(tmp_path / name, newest[-1])
        best = catalogue.best()
        assert best in (catalogue.path_of(1), catalogue.path_of(3)), name
        assert catalogue.steps() == catalogue.all_steps(), "a folder under a checkpoint's name is not whole"
        if victim == 1 and statuses[0] != 0:
            assert not list((tmp_path / name).glob(f"{STAGING_MARK}*")), "the first rank did not clear up"
        CheckpointStore(tmp_path / name, 1, report=lambda _: None).clear_leftovers()
        assert not list((tmp_path / name).glob(f"{STAGING_MARK}*")), name
    *killed, last = kills.values()
    assert len(killed) >= fewest_calls
    assert all(statuses[victim] == -signal.SIGKILL for statuses in killed)
    assert last == [0, 0]
    assert newest == sorted(newest), "a checkpoint that was there was lost"
    assert (newest[0], newest[-1]) == (2, 3)


def test_whatever_room_a_disk_has_all_ranks_save_or_everything_is_as_it_was(tmp_path: Path) -> None:
    command = _in_small_file_system(
        tmp_path, sys.executable, str(HERE / "sharded_full_disk_driver.py"), str(tmp_path)
    )
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, env=ENVIRONMENT)
    assert done.returncode == 0, done.stderr
    *failures, last = json.loads(done.stdout)["outcomes"]
    assert len(failures) > 3
    for first, second in failures:
        assert first == second
        assert "step-00000002: the disk or quota is full" in first
    assert last == ["saved", "saved"]


def _in_small_file_system(folder: Path, *command: str) -> list[str]:
    """The command, run where `folder` is a file system of 400 KiB; skips the test where none may be mounted."""
    mount = f"mount -t tmpfs -o size=400k tmpfs '{folder}'"
    for namespace in NAMESPACES:
        try:
            tried = subprocess.run([*namespace, "sh", "-c", mount], capture_output=True, timeout=30)
        except FileNotFoundError:
            break
        if tried.returncode == 0:
            return [*namespace, "sh", "-c", f'{mount} && exec "$@"', "sh", *command]
    pytest.skip("neither root nor a user namespace may mount a tmpfs here")
