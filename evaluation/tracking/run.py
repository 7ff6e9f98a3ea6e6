import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import yaml

from parallax.data.prepare import prepare
from parallax.errors import BackendError

_PROSE = "".join(f"Line {n} of the {n % 7}th chapter says something about {n * n}.\n" for n in range(2000))
_ENDLESS = 1_000_000
_END_SECONDS = 120.0
_SAMPLE_SECONDS = 2.0


class ShortRun:
    """`parallax train` of a small model in a process of its own, which logs every step.

    Args:
        folder: its run folder, `run`, its configuration and output.
        corpus: prepared text.
        uri: of the tracking server; None: no tracker.
        steps: after which it ends; None: it goes on until it is interrupted.
    """

    def __init__(self, folder: Path, corpus: Path, uri: str | None, steps: int | None = None) -> None:
        self.path = folder / "run"
        self._log = folder / "train.log"
        folder.mkdir(parents=True)
        config = folder / "run.yaml"
        config.write_text(yaml.safe_dump(_config(self.path, corpus, uri, steps)))
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "parallax.train", str(config)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
                start_new_session=True,
            )

    @property
    def said(self) -> str:
        """What it has printed so far, warnings too, with single spaces."""
        return " ".join(self._log.read_text(errors="replace").split())

    @property
    def lines(self) -> int:
        """In its journal so far."""
        journal = self.path / "journal.jsonl"
        return journal.read_bytes().count(b"\n") if journal.exists() else 0

    def wait_until(self, condition: Callable[[], bool], what: str, within_seconds: float = 180.0) -> float:
        """Waits while it runs; the seconds that took. Raises: BackendError: it ended, or took too long."""
        began = time.monotonic()
        while not condition():
            waited = time.monotonic() - began
            if self._process.poll() is not None or waited > within_seconds:
                raise BackendError(f"not seen after {waited:.0f} s: {what}; the run said: {self.said[-1500:]}")
            time.sleep(0.1)
        return time.monotonic() - began

    def interrupt(self) -> float:
        """Ctrl-C; waits for its orderly end. The seconds that took."""
        began = time.monotonic()
        self._process.send_signal(signal.SIGINT)
        self.finish()
        return time.monotonic() - began

    def finish(self) -> int:
        """Waits for its end; the exit code. Raises: BackendError."""
        try:
            return self._process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            raise BackendError(f"the run did not end within {_END_SECONDS:g} s: {self.said[-1500:]}") from None

    def kill(self) -> None:
        """Whatever is left of it."""
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()


def prepare_text(folder: Path) -> Path:
    """A corpus of 100 kB, as bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    text = folder / "prose.txt"
    text.write_text(_PROSE)
    prepare(text, folder / "corpus", num_workers=1)
    return folder / "corpus"


def _config(run: Path, corpus: Path, uri: str | None, steps: int | None) -> dict[str, object]:
    sizes = {"num_layers": 2, "num_heads": 4, "hidden_size": 64, "intermediate_size": 128}
    return {
        "seed": 0,
        "run": {"dir": str(run)},
        "model": {**sizes, "vocab_size": 257, "max_seq_len": 64},
        "data": {"path": str(corpus)},
        "train": {
            "max_steps": steps or _ENDLESS,
            "global_batch": 8,
            "precision": "fp32",
            "log_every": 1,
            "eval_every": 0,
            "save_every": 0,
        },
        "optim": {"lr": 1e-3, "schedule": "constant"},
        "runtime": {"device": "cpu", "num_threads": 1},
        "tracking": {
            "mlflow": uri is not None,
            "uri": uri,
            "tensorboard": False,
            "experiment": "tracking",
            "system_interval": _SAMPLE_SECONDS,
        },
    }
