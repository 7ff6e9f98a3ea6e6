"""Runs that take a second: their configuration, the ways to start one, and what to compare two of them by."""

import io
import multiprocessing
import os
import time
from collections.abc import Callable, Mapping
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from safetensors.torch import load_file

from parallax.config.load import check_config
from parallax.config.run import RunConfig
from parallax.errors import run_and_explain
from parallax.metrics.journal import read_journal
from parallax.train.command import train

Settings = Mapping[str, Any]

TINY: Settings = {
    "seed": 3,
    "model.num_layers": 1,
    "model.num_heads": 2,
    "model.hidden_size": 32,
    "model.intermediate_size": 48,
    "model.vocab_size": 257,
    "model.max_seq_len": 32,
    "train.max_steps": 12,
    "train.global_batch": 4,
    "train.precision": "fp32",
    "train.log_every": 1,
    "train.eval_every": 6,
    "train.eval_samples": 4,
    "train.save_every": 6,
    "optim.lr": 1e-2,
    "optim.warmup_steps": 2,
    "runtime.num_threads": 1,
    "tracking.mlflow": False,
    "tracking.tensorboard": False,
}
"""23,000 parameters, two tracks, two passes; needs data.path and run.dir."""

TIMING = {"time", "seconds", "tokens_per_second", "step_seconds", "mfu", "memory_bytes"}
"""What a journal line says of the machine; all else is the same whenever and wherever the run is made."""

_PROCESSES = multiprocessing.get_context("forkserver")
_PROCESSES.set_forkserver_preload(["parallax.train.command", "torch._dynamo", "matplotlib.figure"])


def tiny_config(settings: Settings) -> RunConfig:
    """`TINY` with changes, by dotted key."""
    nested: dict[str, Any] = {}
    for key, value in {**TINY, **settings}.items():
        section, _, name = key.rpartition(".")
        node = nested
        for part in section.split(".") if section else []:
            node = node.setdefault(part, {})
        node[name] = value
    return check_config(nested, source="the test")


def train_here(settings: Settings) -> tuple[int, str]:
    """Trains in this process; the exit code and what was shown. Errors are raised."""
    shown = io.StringIO()
    code = train(tiny_config(settings), Console(file=shown, width=80))
    return code, shown.getvalue()


def start(settings: Settings, log: Path, prepare: Callable[[], None] | None = None) -> BaseProcess:
    """Trains in a process of its own, which starts in an instant because torch is loaded already.

    Args:
        settings: changes to `TINY`.
        log: takes stdout and stderr.
        prepare: called in the process before it trains.
    """
    process = _PROCESSES.Process(target=_work, args=(dict(settings), str(log), prepare), daemon=True)
    process.start()
    return process


def _work(settings: Settings, log: str, prepare: Callable[[], None] | None) -> None:
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    if prepare is not None:
        prepare()
    raise SystemExit(run_and_explain(lambda: train(tiny_config(settings))))


def finish(process: BaseProcess, within_seconds: float = 60.0) -> int:
    """Waits for the end of a process; its exit code, negative if a signal ended it."""
    process.join(within_seconds)
    if process.exitcode is None:
        process.kill()
        raise TimeoutError(f"the run had not ended after {within_seconds} s")
    return process.exitcode


def wait_until(condition: Callable[[], bool], process: BaseProcess, within_seconds: float = 60.0) -> bool:
    """Waits for a condition, looking as often as it can; False: the process ended before."""
    deadline = time.monotonic() + within_seconds
    while not condition():
        if not process.is_alive():
            return False
        if time.monotonic() > deadline:
            process.kill()
            raise TimeoutError(f"nothing of the kind happened within {within_seconds} s")
        time.sleep(0.0005)
    return True


def num_lines(run: Path) -> int:
    """Lines in the journal of a run that may be running."""
    journal = run / "journal.jsonl"
    return journal.read_bytes().count(b"\n") if journal.exists() else 0


def measured(run: Path) -> list[dict[str, Any]]:
    """The journal without what depends on the machine; floats compare bit for bit."""
    records = read_journal(run / "journal.jsonl")
    return [{key: value for key, value in record.items() if key not in TIMING} for record in records]


def saved_tensors(run: Path, step: int) -> dict[str, torch.Tensor]:
    """Weights and optimizer state of a checkpoint."""
    folder = run / "checkpoints" / f"step-{step:08d}"
    weights, optimizer = load_file(folder / "model.safetensors"), load_file(folder / "optimizer.safetensors")
    return {f"model {k}": v for k, v in weights.items()} | {f"optimizer {k}": v for k, v in optimizer.items()}


def assert_same_run(run: Path, other: Path, step: int) -> None:
    """The same measurements at every step, and the same weights and moments at the end, bit for bit."""
    assert measured(run) == measured(other)
    ours, theirs = saved_tensors(run, step), saved_tensors(other, step)
    assert ours.keys() == theirs.keys()
    assert [name for name in ours if not torch.equal(ours[name], theirs[name])] == []


def checkpoint_steps(run: Path) -> list[int]:
    """The steps that have a checkpoint folder."""
    return sorted(int(path.name.removeprefix("step-")) for path in (run / "checkpoints").glob("step-*"))
