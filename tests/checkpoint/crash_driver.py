"""Saves checkpoints in processes that are killed; run as a script, since forking needs a process of its own.

    python crash_driver.py FOLDER boundaries|replace|random

Makes one run folder for each kill, and writes FOLDER/kills.json: run folder -> the newest step whose save had
returned before the kill.
"""

import json
import os
import random
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import Any

from saved_steps import content

from parallax.checkpoint.store import CheckpointStore

_NUM_RANDOM_KILLS = 12
_NUM_ELEMENTS = 200_000
_ANYWHERE = {"fsync", "os.remove", "os.rmdir"}
_INSIDE = {"open", "os.mkdir", "os.rename", "os.chmod", "os.listdir", "os.scandir"}


def main(folder: Path, mode: str) -> None:
    # A killed process loses nothing that it gave to the kernel; waiting for the disk would only take time.
    os.fsync = lambda _: None
    kills = kill_at_random(folder) if mode == "random" else kill_at_boundaries(folder, damaged=mode == "replace")
    (folder / "kills.json").write_text(json.dumps(kills))


def kill_at_boundaries(folder: Path, *, damaged: bool) -> dict[str, int]:
    """Kills a save before its first call to the operating system, then before its second, and so on."""
    template = folder / "template"
    store = CheckpointStore(template, keep_last=1)
    store.save(1, **content(1))
    store.mark_best(1, 2.0)
    store.save(2, **content(2))
    if damaged:
        CheckpointStore(template, keep_last=2).save(3, **content(3))
        (store.path_of(3) / "state.json").write_text("torn")
    kills = {}
    for boundary in range(1, 1000):
        run = folder / f"boundary-{boundary:03d}"
        shutil.copytree(template, run)
        child = os.fork()
        if child == 0:
            _leave_after(_save_until_killed, run, boundary)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        kills[run.name] = 2
        if status == 0:
            return kills
        if status != -signal.SIGKILL:
            raise SystemExit(f"the save at boundary {boundary} failed by itself: {status}")
    raise SystemExit("the save never ended")


def kill_at_random(folder: Path) -> dict[str, int]:
    """Kills a process that saves one step after the other, after a random time."""
    kills = {}
    for number in range(_NUM_RANDOM_KILLS):
        run = folder / f"random-{number:03d}"
        CheckpointStore(run, keep_last=2).save(1, **content(1, _NUM_ELEMENTS))
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            _leave_after(_save_forever, run, writer)
        os.close(writer)
        time.sleep(random.uniform(0.01, 0.3))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        with os.fdopen(reader) as lines:
            kills[run.name] = max(map(int, lines.read().split()), default=1)
    return kills


def _leave_after(work: Any, *arguments: Any) -> None:
    """Ends this forked process without the rest of its parent's program."""
    status = 1
    try:
        work(*arguments)
        status = 0
    finally:
        os._exit(status)


def _save_until_killed(run: Path, boundary: int) -> None:
    store = CheckpointStore(run, keep_last=1)
    _die_before_call(boundary, str(run))
    store.save(3, **content(3))
    store.mark_best(3, 1.0)


def _save_forever(run: Path, writer: int) -> None:
    store = CheckpointStore(run, keep_last=2)
    for step in range(2, 10_000):
        store.save(step, **content(step, _NUM_ELEMENTS))
        os.write(writer, f"{step}\n".encode())


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
    main(Path(sys.argv[1]), sys.argv[2])
