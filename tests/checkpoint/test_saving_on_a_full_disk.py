import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from saved_steps import assert_newest_is, content, save_steps

from parallax.checkpoint.store import CheckpointStore
from parallax.errors import DiskFullError
from parallax.runtime.files import STAGING_MARK

DRIVER = Path(__file__).parent / "full_disk_driver.py"
NAMESPACES = (["unshare", "--mount"], ["unshare", "--user", "--map-root-user", "--mount"])


def _in_small_file_system(folder: Path, *command: str) -> list[str]:
    """The command, run where `folder` is a file system of 400 KiB that no other process sees.

    Skips the test where neither root nor a user namespace may mount one.
    """
    mount = f"mount -t tmpfs -o size=400k tmpfs '{folder}'"
    for namespace in NAMESPACES:
        try:
            tried = subprocess.run([*namespace, "sh", "-c", mount], capture_output=True, timeout=30)
        except FileNotFoundError:
            break
        if tried.returncode == 0:
            return [*namespace, "sh", "-c", f'{mount} && exec "$@"', "sh", *command]
    pytest.skip("neither root nor a user namespace may mount a tmpfs here")


def test_whatever_room_a_disk_has_a_save_succeeds_or_leaves_everything_as_it_was(tmp_path: Path) -> None:
    command = _in_small_file_system(tmp_path, sys.executable, str(DRIVER), str(tmp_path))
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=120, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    *failures, last = result["outcomes"]
    assert len(failures) > 5
    assert all("step-00000002: the disk or quota is full" in failure for failure in failures)
    assert last == "saved"
    assert result["best"] == "full, still step 1"


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_disk_that_says_so_only_when_synced_is_full_as_well(
    store: CheckpointStore, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    save_steps(store, 1)

    def refuse(descriptor: int) -> None:
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as full:
        full.setattr(os, "fsync", refuse)
        with pytest.raises(DiskFullError, match=r"step-00000002: the disk or quota is full; .* intact"):
            store.save(2, **content(2))
        with pytest.raises(DiskFullError, match=r"best\.json"):
            store.mark_best(1, 1.0)
    assert not list(store.folder.glob(f"{STAGING_MARK}*"))
    assert [path.name for path in store.folder.iterdir()] == ["step-00000001"]
    assert_newest_is(store, 1)
