"""Fills a small file system while checkpoints are saved; run inside a mount namespace that has one.

    python full_disk_driver.py FOLDER

Prints one JSON object: for each number of free pages, what became of the save.
"""

import json
import os
import sys
from pathlib import Path

from saved_steps import assert_newest_is, content

from parallax.checkpoint.store import CheckpointStore
from parallax.errors import DiskFullError


def main(folder: Path) -> None:
    store = CheckpointStore(folder / "checkpoints", keep_last=9)
    store.save(1, **content(1))
    store.mark_best(1, 2.0)
    before = sorted(path.name for path in store.folder.iterdir())
    page = os.statvfs(folder).f_frsize
    outcomes: list[str] = []
    for free in range(40):
        _fill(folder / "filler", free * page)
        try:
            store.save(2, **content(2))
        except DiskFullError as error:
            assert sorted(path.name for path in store.folder.iterdir()) == before
            assert_newest_is(store, 1)
            outcomes.append(str(error))
            continue
        assert_newest_is(store, 2)
        outcomes.append("saved")
        break
    print(json.dumps({"outcomes": outcomes, "best": _mark_on_full_disk(store, folder)}))


def _mark_on_full_disk(store: CheckpointStore, folder: Path) -> str:
    _fill(folder / "filler", 0)
    try:
        store.mark_best(2, 1.0)
    except DiskFullError:
        pointer = store.best_pointer()
        return f"full, still step {pointer.step if pointer else None}"
    return "saved"


def _fill(filler: Path, free_bytes: int) -> None:
    """Makes the file as large as leaves `free_bytes`."""
    filler.unlink(missing_ok=True)
    available = os.statvfs(filler.parent)
    size = available.f_bavail * available.f_frsize - free_bytes
    with filler.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, size)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
