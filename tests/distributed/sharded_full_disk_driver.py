"""Fills a small file system while two ranks save; run inside a mount namespace that has one.

    python sharded_full_disk_driver.py FOLDER

Prints one JSON object: for each number of free pages, what the save said on each rank.
"""

import json
import os
import sys
from functools import partial
from pathlib import Path

import torch.distributed as dist
from sharded_steps import assert_newest_is, checkpoint_group, content
from two_ranks import fork_ranks

from parallax.checkpoint.sharded_store import ShardedStore
from parallax.errors import DiskFullError


def main(folder: Path) -> None:
    """Ends with the status of the first rank that failed."""
    sys.exit(max(map(abs, fork_ranks(partial(_fill_and_save, folder)))))


def _fill_and_save(folder: Path, rank: int) -> None:
    store = ShardedStore(folder / "checkpoints", 9, group=checkpoint_group())
    store.save(1, **content(1, rank, 2))
    page = os.statvfs(folder).f_frsize
    outcomes: list[list[str]] = []
    for free in range(0, 60, 2):
        if rank == 0:
            _fill(folder / "filler", free * page)
        dist.barrier()
        said = "saved"
        try:
            store.save(2, **content(2, rank, 2))
        except DiskFullError as error:
            said = str(error)
        dist.barrier()
        if said != "saved":
            assert [path.name for path in store.folder.iterdir()] == ["step-00000001"]
        assert_newest_is(store.folder, 2 if said == "saved" else 1)
        both = ["", ""]
        dist.all_gather_object(both, said)
        outcomes.append(both)
        if said == "saved":
            break
    if rank == 0:
        print(json.dumps({"outcomes": outcomes}), flush=True)


def _fill(filler: Path, free_bytes: int) -> None:
    """Makes the file as large as leaves `free_bytes`."""
    filler.unlink(missing_ok=True)
    available = os.statvfs(filler.parent)
    size = available.f_bavail * available.f_frsize - free_bytes
    with filler.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, size)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
