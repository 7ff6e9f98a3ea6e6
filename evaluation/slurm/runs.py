"""Runs of the built-in corpus that take seconds, and what a run that came back must not show."""

import json
from pathlib import Path
from typing import Any

from evaluation.slurm.cluster import Cluster
from parallax.metrics.journal import read_journal

STEPS = 60
CONFIG = "configs/tiny.yaml"
_SETTINGS = (
    "train.log_every=1",
    "train.eval_every=0",
    "train.save_every=10",
    "train.precision=fp32",
    "train.keep_last=100",
    "sample.every=0",
    "model.num_layers=2",
    "model.max_seq_len=128",
    "runtime.device=cpu",
    "runtime.num_threads=1",
    "tracking.tensorboard=false",
)
TWO_NODES = ("--nodes=2",)


class SlurmRun:
    """A run in a folder of its own, with an MLflow store of its own."""

    def __init__(
        self, folder: Path, cluster: Cluster, *, ranks_per_node: int = 1, mlflow: bool = False, steps: int = STEPS
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.cluster, self.path, self.log, self._steps = cluster, folder / "run", folder / "job.log", steps
        self.uri = f"sqlite:///{folder}/mlflow.db"
        self._ranks = {"PARALLAX_NPROC": str(ranks_per_node)}
        self.settings = [
            *_SETTINGS,
            f"train.max_steps={steps}",
            f"run.dir={self.path}",
            f"tracking.mlflow={str(mlflow).lower()}",
        ]
        self.settings += [f"tracking.uri={self.uri}"]

    def submit(
        self, *more: str, options: tuple[str, ...] = TWO_NODES, variables: dict[str, str] | None = None
    ) -> str:
        """Submits it, with the tracks on two ranks; the job's number."""
        settings = [*self.settings, "parallel.track=2", *more]
        return self.cluster.submit(
            CONFIG, *settings, options=options, variables=self._ranks | (variables or {}), log=self.log
        )

    def wait_for_step(self, step: int, within_seconds: float = 120.0) -> None:
        """Waits until the step is in the journal."""
        self.cluster.wait_until(lambda: self.step >= step, f"step {step}", within_seconds, self.log)

    @property
    def step(self) -> int:
        """The last one in the journal."""
        return max((record["step"] for record in read_journal(self.path / "journal.jsonl")), default=0)

    @property
    def losses(self) -> list[float]:
        """Of every step, which the journal must have once and in order."""
        records = read_journal(self.path / "journal.jsonl")
        assert [record["step"] for record in records] == list(range(1, self._steps + 1))
        return [record["loss"] for record in records]

    @property
    def events(self) -> list[dict[str, Any]]:
        """Starts, resumptions and ends."""
        events = self.path / "events.jsonl"
        return [json.loads(line) for line in events.read_text().splitlines()] if events.exists() else []

    @property
    def starts(self) -> list[int]:
        """The step that each attempt went on from, once it had loaded."""
        return [event["step"] for event in self.events if event["event"] in ("start", "resume")]

    def resumed_at(self) -> list[int]:
        """The step that each attempt but the first went on from."""
        return self.starts[1:]

    def state(self) -> str:
        """How the run says it stands; empty before its first attempt."""
        state = self.path / "state"
        return state.read_text().strip() if state.exists() else ""

    def attempt(self, job: str) -> int:
        """Which attempt of the job trains; -1: none."""
        word, _, by = self.state().partition(" ")
        return int(by.removeprefix(f"{job}.")) if word == "running" else -1
