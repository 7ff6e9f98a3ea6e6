import faulthandler
import json
import os
import socket
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from parallax.runtime.collectives_log import describe_collective, recent_collectives
from parallax.runtime.heartbeat import Loss
from parallax.runtime.phase import whereabouts


def write_dump(path: Path, rank: int, losses: Sequence[Loss], error: str | None) -> None:
    """Writes what this rank knew and did when the run ended: one JSON document, then every thread's stack.

    Step, phase and collectives are this rank's own at this moment; those of a lost rank are of its last
    heartbeat. `error` is the traceback of this rank's own error, which may be the cause or an effect. It
    takes no lock and issues no collective, so it may be called while the main thread hangs.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    collectives = recent_collectives()
    record = {
        "rank": rank,
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "time": time.strftime("%Y-%m-%d %H:%M:%S %Z"),
        "lost": [asdict(loss) for loss in losses],
        "here": asdict(whereabouts()),
        "error": error,
        "last_collectives": [describe_collective(entry) for entry in collectives],
        "recorder": collectives,
    }
    with path.open("w", encoding="utf-8") as file:
        file.write(json.dumps(record, indent=1) + "\n\n")
        file.flush()
        faulthandler.dump_traceback(file, all_threads=True)
        file.flush()
        os.fsync(file.fileno())


def read_dump(path: Path) -> tuple[dict[str, object], str]:
    """The JSON document of a dump, and the stacks after it."""
    text = path.read_text(encoding="utf-8")
    record, end = json.JSONDecoder().raw_decode(text)
    return record, text[end:].lstrip()
