"""Checks that go wrong in every way, for the runner; imported by its processes."""

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from evaluation.gpu_proof.rows import Row, equal
from evaluation.gpu_proof.setting import Setting


def raises(setting: Setting) -> Iterator[Row]:
    print("what the check prints")
    yield equal("before the error", 1, 1)
    raise ValueError("broken\nhere")


def crashes(setting: Setting) -> Iterator[Row]:
    yield equal("before the crash", setting.quick, True)
    os.write(2, b"its last words\n")
    os._exit(7)


def hangs(setting: Setting) -> Iterator[Row]:
    child = subprocess.Popen(["sleep", "600"])
    Path(os.environ["PROOF_TEST_PID"]).write_text(str(child.pid))
    yield equal("before the hang", 1, 1)
    time.sleep(600)
