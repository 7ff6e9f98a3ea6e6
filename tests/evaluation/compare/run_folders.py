"""Run folders as a run leaves them, without training."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from parallax.checkpoint.write import write_checkpoint
from parallax.config.load import check_config, dump_config
from parallax.metrics.journal import Journal

MODEL = {
    "num_layers": 1,
    "num_heads": 2,
    "num_kv_heads": 1,
    "hidden_size": 8,
    "intermediate_size": 12,
    "vocab_size": 13,
    "max_seq_len": 6,
}
TEXT = "f" * 64


def write_run(
    folder: Path, losses: Sequence[float], *, seed: int = 0, corpus: str = TEXT, lr: float = 1e-3, **model: Any
) -> Path:
    """A run that was validated at the given losses, 10 steps apart."""
    folder.mkdir(parents=True)
    config = check_config(
        {
            "seed": seed,
            "run": {"name": folder.name, "dir": str(folder)},
            "model": MODEL | model,
            "data": {"path": "nowhere"},
            "train": {"max_steps": max(1, 10 * len(losses)), "global_batch": 2},
            "optim": {"lr": lr},
        },
        source="the test",
    )
    (folder / "config.yaml").write_text(dump_config(config))
    journal = Journal(folder / "journal.jsonl")
    for number, loss in enumerate(losses, 1):
        facts = {"step": 10 * number, "tokens": 120 * number, "flops": 1e6 * number, "seconds": 0.5 * number}
        journal.append(facts | {"loss": loss - 0.1, "val_loss": loss})
        journal.append({**facts, "step": 10 * number + 1, "loss": loss - 0.1})
    journal.close()
    checkpoint = folder / "checkpoints" / "step-00000010"
    checkpoint.mkdir(parents=True)
    weights = {"norm.weight": torch.ones(8)}
    texts = {"config.yaml": dump_config(config)}
    write_checkpoint(checkpoint, 10, weights=weights, optimizer={}, state={"corpus": corpus}, texts=texts)
    return folder


def write_arm(root: Path, name: str, finals: Sequence[float], **more: Any) -> list[Path]:
    """One run for each final loss, seeds from 0."""
    return [
        write_run(root / f"{name}-{seed}", [final + 1, final], seed=seed, **more)
        for seed, final in enumerate(finals)
    ]
