# ruff: noqa: E402  (settings that torch reads when it is imported come first)
"""Forgetting: what fine-tuning on text B costs on text A, and what an anchor or frozen embeddings save.

`python -m evaluation.forgetting [A] [B] [--steps N] [--seeds 0 1] [--anchors 0.1 0.25]`

A and B are text files or prepared corpora. Without them, A is the Python manual and B Python's own source code;
nothing is downloaded. Everything is kept under `--output`, and the same command goes on where it was stopped.
"""

import argparse
import sysconfig
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

from parallax.runtime.threads import limit_spinning

limit_spinning()

from rich.console import Console
from rich.table import Table

from parallax.checkpoint.model import load_model
from parallax.config.load import check_config
from parallax.config.run import RunConfig
from parallax.data.builtin import builtin_folder, is_builtin
from parallax.data.corpus import Corpus, check_vocabulary
from parallax.data.input_files import TEXT_SUFFIXES
from parallax.data.prepare import prepare
from parallax.data.validation import validation_batches
from parallax.errors import RunError, run_and_explain
from parallax.metrics.quality import evaluate
from parallax.runtime.files import write_text_atomic
from parallax.train.command import train

_CODE_BYTES = 3_000_000
_WINDOW = 128


@dataclass(frozen=True)
class Task:
    """What is compared."""

    original: Path
    """Corpus A, which the model learns first."""
    new: Path
    """Corpus B, which it is fine-tuned on."""
    output: Path
    pretrain_steps: int
    steps: int
    eval_windows: int


@dataclass(frozen=True)
class Losses:
    """Validation losses in nats a token."""

    original: float
    new: float


def main(arguments: Sequence[str] | None = None) -> int:
    """Trains what is not trained yet and prints the table; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m evaluation.forgetting")
    parser.add_argument("original", nargs="?", default="builtin:python-manual", help="text A: file or corpus")
    parser.add_argument("new", nargs="?", help="text B: file or corpus; default: Python's source code")
    parser.add_argument("--tokenizer", default="bpe:1024", help="learned on A where that is a text file")
    parser.add_argument("--pretrain-steps", type=int, default=300)
    parser.add_argument("--steps", type=int, default=100, help="of every fine-tuning")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--anchors", type=float, nargs="*", default=[0.1, 0.25], help="ratios of A mixed in")
    parser.add_argument("--eval-windows", type=int, default=256, help="of 128 tokens, per text")
    parser.add_argument("--output", default="runs/forgetting")
    return run_and_explain(lambda: _compare(parser.parse_args(arguments)))


def _compare(given: argparse.Namespace) -> int:
    output = Path(given.output)
    original = _open_corpus(given.original, output / "original", given.tokenizer)
    new = _open_corpus(given.new or _python_source(output), output / "new", str(original / "tokenizer.json"))
    task = Task(original, new, output, given.pretrain_steps, given.steps, given.eval_windows)
    variants = fine_tunings(original, given.anchors)
    found: dict[str, list[Losses]] = {name: [] for name in ("pretrained on A", *variants)}
    for seed in given.seeds:
        pretrained = _run(task, seed, "pretrained", {})
        found["pretrained on A"].append(_measure(task, pretrained))
        for name, changes in variants.items():
            start = {"data": {"path": str(new)}, "train": {"init_from": str(pretrained)}}
            run = _run(task, seed, name.replace(" ", "-"), _merged(start, changes))
            found[name].append(_measure(task, run))
    _print_table(task, found, len(given.seeds))
    return 0


def fine_tunings(original: Path, anchors: Sequence[float]) -> dict[str, dict[str, Any]]:
    """Name -> settings of the fine-tunings beside each other; they differ in nothing else."""
    anchored = {
        f"anchor {ratio:g}": {"data": {"anchor": {"path": str(original), "ratio": ratio}}} for ratio in anchors
    }
    frozen = {"train": {"freeze": ["embedding.*", "head.*"]}}
    return {"no anchor": {}, **anchored, "embeddings and head frozen": frozen}


def _open_corpus(given: str, folder: Path, tokenizer: str) -> Path:
    """The folder of a corpus; a text file is prepared into `folder` once, a built-in one in the cache."""
    if is_builtin(given):
        return builtin_folder(given, tokenizer)
    if not Path(given).name.lower().endswith(TEXT_SUFFIXES):
        return Path(given)
    if not folder.exists():
        prepare(given, folder, tokenizer=tokenizer)
    source = Corpus.open(folder).meta.inputs
    if source != (given,):
        raise RunError(f"{folder} was made from {', '.join(source)}, not {given}; choose another --output")
    return folder


def _python_source(output: Path) -> str:
    """The first megabytes of the standard library's own code as a text file."""
    file = output / "python-source.txt"
    if not file.exists():
        modules = sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))
        text = "\n".join(module.read_text(encoding="utf-8", errors="replace") for module in modules)
        file.parent.mkdir(parents=True, exist_ok=True)
        write_text_atomic(file, text[:_CODE_BYTES])
    return str(file)


def _run(task: Task, seed: int, name: str, changes: Mapping[str, Any]) -> Path:
    """Trains a run to its end, or finds it complete; its folder."""
    folder = task.output / f"seed-{seed}" / name
    config = _config(task, seed, folder, changes)
    check_vocabulary(Corpus.open(task.new).meta, config.model.vocab_size)
    # 130: it was asked to stop, and has saved.
    if train(config, Console(stderr=True)) != 0:
        raise KeyboardInterrupt
    return folder


def _config(task: Task, seed: int, folder: Path, changes: Mapping[str, Any]) -> RunConfig:
    steps = task.steps if changes else task.pretrain_steps
    settings = {
        "seed": seed,
        "run": {"name": folder.name, "dir": str(folder)},
        "model": {
            "num_tracks": 2,
            "num_layers": 2,
            "num_heads": 4,
            "hidden_size": 96,
            "vocab_size": Corpus.open(task.original).meta.vocab_size,
            "max_seq_len": _WINDOW,
        },
        "data": {"path": str(task.original)},
        "train": {
            "max_steps": steps,
            "global_batch": 16,
            "log_every": 25,
            "eval_every": 100,
            "eval_samples": 32,
            "save_every": 100,
            "save_best": False,
        },
        "optim": {"lr": 1e-3 if changes else 3e-3, "warmup_steps": 20},
        "runtime": {"device": "cpu"},
        "tracking": {"mlflow": False, "tensorboard": False},
    }
    return check_config(_merged(settings, changes), source="evaluation.forgetting")


def _merged(settings: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Nested settings with changes put over them."""
    merged = dict(settings)
    for key, value in changes.items():
        nested = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = _merged(merged[key], value) if nested else value
    return merged


def _measure(task: Task, run: Path) -> Losses:
    """Losses of a run's last checkpoint on the same validation windows of both texts, in fp32."""
    model = load_model(run).model

    def loss(corpus: Path) -> float:
        split = Corpus.open(corpus).split("val")
        batches = validation_batches(split, max_seq_len=_WINDOW, batch_size=32, max_windows=task.eval_windows)
        return evaluate(model, batches, bytes_per_token=split.bytes_per_token).loss

    return Losses(loss(task.original), loss(task.new))


def _print_table(task: Task, found: Mapping[str, Sequence[Losses]], num_seeds: int) -> None:
    before = found["pretrained on A"]
    title = (
        f"validation loss in nats/token, mean (half the range) of {num_seeds} seeds; "
        f"{task.pretrain_steps} steps on A, then {task.steps}"
    )
    table = Table(box=None, pad_edge=False)
    for column in ("", "on A", "forgotten", "on B"):
        table.add_column(column, justify="right" if column else "left", no_wrap=True)
    for name, losses in found.items():
        forgotten = [after.original - first.original for after, first in zip(losses, before, strict=True)]
        table.add_row(
            name,
            _figure([one.original for one in losses]),
            "" if losses is before else _figure(forgotten, "+"),
            _figure([one.new for one in losses]),
        )
    console = Console(highlight=False, markup=False)
    for letter, corpus in (("A", task.original), ("B", task.new)):
        console.print(f"{letter}: {', '.join(Corpus.open(corpus).meta.inputs)} ({corpus})")
    console.print(title)
    console.print(table)


def _figure(values: Sequence[float], sign: str = "") -> str:
    return f"{mean(values):{sign}.3f} ({(max(values) - min(values)) / 2:.3f})"


if __name__ == "__main__":
    raise SystemExit(main())
