import json
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import yaml

from evaluation.tracking.server import CHECKOUT
from parallax.data.prepare import prepare
from parallax.metrics.journal import read_journal

_RUN_SECONDS = 900.0
_MODEL = {"num_layers": 1, "num_heads": 2, "vocab_size": 257, "max_seq_len": 32}
_TRAIN = {
    "global_batch": 4,
    "precision": "fp32",
    "log_every": 1,
    "eval_every": 50,
    "eval_samples": 4,
    "save_every": 0,
}
_WITHOUT_END = 1_000_000


@dataclass(frozen=True)
class Setting:
    """A run small enough to be made often."""

    folder: Path
    """Of its corpus, configuration and run folders."""
    hidden_size: int = 64
    outage_steps: int = 100
    """That an outage lasts at the least."""

    def write(self) -> None:
        """Prepares corpus and configuration."""
        self.folder.mkdir(parents=True, exist_ok=True)
        prose = self.folder / "prose.txt"
        prose.write_text(
            "".join(f"Line {n} of chapter {n % 7} says something about {n * n}.\n" for n in range(900))
        )
        prepare(prose, self.folder / "corpus")
        config = {
            "model": _MODEL | {"hidden_size": self.hidden_size},
            "data": {"path": str(self.folder / "corpus")},
            "train": _TRAIN,
            "optim": {"lr": 1e-3, "schedule": "constant", "warmup_steps": 0},
            "runtime": {"num_threads": 1},
            "sample": {"every": 200, "max_new_tokens": 4},
            "tracking": {"tensorboard": False},
        }
        (self.folder / "run.yaml").write_text(yaml.safe_dump(config))


class Training:
    """A training process; leaving the block ends it.

    Args:
        setting: what it trains; written already.
        name: of its run folder.
        uri: of the MLflow store; None: no tracker.
        steps: after which it ends; by default it goes on until it is stopped.
    """

    def __init__(self, setting: Setting, name: str, uri: str | None, steps: int = _WITHOUT_END) -> None:
        self.run = setting.folder / name
        overrides = [
            f"run.dir={self.run}",
            f"train.max_steps={steps}",
            f"tracking.mlflow={'true' if uri else 'false'}",
        ]
        if uri:
            overrides += [f"tracking.uri={uri}"]
        self.log = setting.folder / f"{name}.log"
        with self.log.open("w") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "parallax.train", str(setting.folder / "run.yaml"), *overrides],
                stdout=log,
                stderr=log,
                cwd=CHECKOUT,
                env=os.environ | {"OMP_NUM_THREADS": "1"},
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()

    @property
    def is_running(self) -> bool:
        """Whether the process lives."""
        return self._process.poll() is None

    @property
    def lines(self) -> int:
        """Journal lines so far."""
        journal = self.run / "journal.jsonl"
        return journal.read_bytes().count(b"\n") if journal.exists() else 0

    @property
    def run_id(self) -> str | None:
        """MLflow's; None: it has none yet."""
        path = self.run / "mlflow_run.json"
        return str(json.loads(path.read_text())["run_id"]) if path.exists() else None

    def wait_until(self, condition: Callable[[], bool], what: str) -> None:
        """Waits for a condition. Raises: RuntimeError: the run ended before."""
        deadline = time.monotonic() + _RUN_SECONDS
        while not condition():
            if not self.is_running or time.monotonic() > deadline:
                raise RuntimeError(f"the run ended before {what}: {self.log.read_text()[-600:]}")
            time.sleep(0.2)

    def stop(self) -> None:
        """Asks it to save and end, and waits for that."""
        self._process.send_signal(signal.SIGINT)
        self.finish(128 + signal.SIGINT)

    def finish(self, code: int = 0) -> None:
        """Waits for its end. Raises: RuntimeError: it ended with another exit code."""
        if self._process.wait(timeout=_RUN_SECONDS) != code:
            raise RuntimeError(f"the run failed: {self.log.read_text()[-600:]}")

    def step_seconds(self) -> float:
        """Median of the time that a step took, without the first tenth, in which everything is still loaded."""
        seconds = [record["step_seconds"] for record in read_journal(self.run / "journal.jsonl")]
        return statistics.median(seconds[len(seconds) // 10 :])
