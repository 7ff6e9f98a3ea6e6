"""Saves checkpoints of two ranks, one of which is killed; run as a script, since forking needs a fresh process.

    python sharded_crash_driver.py FOLDER VICTIM

Makes one run folder for each kill of the victim, and writes FOLDER/kills.json: run folder -> exit statuses of
the ranks.
"""

import json
import os
import shutil
import signal
import sys
from functools import partial
from pathlib import Path

from sharded_steps import checkpoint_group, content
from two_ranks import fork_ranks

from parallax.checkpoint.sharded_store import ShardedStore

_ANYWHERE = {"fsync", "os.remove", "os.rmdir"}
_INSIDE = {"open", "os.mkdir", "os.rename", "os.chmod", "os.listdir", "os.scandir"}


def main(folder: Path, victim: int) -> None:
    """Kills a save before the victim's first call to the operating system, then before its second, and so on."""
    # A killed process loses nothing that it gave to the kernel; waiting for the disk would only take time.
    os.fsync = lambda _: None
    template = folder / "template"
    assert fork_ranks(partial(_save_first, template)) == [0, 0]
    kills = {}
    for boundary in range(1, 1000):
        run = folder / f"boundary-{boundary:03d}"
        shutil.copytree(template, run)
        kills[run.name] = fork_ranks(partial(_save_until_killed, run, victim, boundary))
        if kills[run.name][victim] != -signal.SIGKILL:
            break
    (folder / "kills.json").write_text(json.dumps(kills))


def _save_first(run: Path, rank: int) -> None:
    store = ShardedStore(run, 1, group=checkpoint_group())
    store.save(1, **content(1, rank, 2), best_val_loss=2.0)
    store.save(2, **content(2, rank, 2))


def _save_until_killed(run: Path, victim: int, boundary: int, rank: int) -> None:
    store = ShardedStore(run, 1, group=checkpoint_group(), report=lambda _: None)
    if rank == victim:
        _die_before_call(boundary, str(run))
    store.save(3, **content(3, rank, 2), best_val_loss=1.0)


def _die_before_call(number: int, folder: str) -> None:
    """Kills this process before its `number`-th fsync or removal, or call on a path inside `folder`."""
    calls = 0

    def count(event: str, path: object = None) -> None:
        nonlocal calls
        # Removals name their files relative to an open folder.
        if event in _ANYWHERE or (event in _INSIDE and str(path).startswith(folder)):
            calls += 1
            if calls == number:
                os.kill(os.getpid(), signal.SIGKILL)

    os.fsync = lambda _: count("fsync")
    sys.addaudithook(lambda event, arguments: count(event, *arguments[:1]))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
