"""A checkpoint's content as a function of its step, so that what is loaded can be told from anything else."""

from typing import Any

import torch

from parallax.checkpoint.load import Checkpoint, read_checkpoint
from parallax.checkpoint.store import CheckpointStore

TEXTS = {"config.yaml": "seed: 0\n", "tokenizer.json": '{"type": "byte", "note": "ä"}\r\n'}


def content(step: int, num_elements: int = 1000) -> dict[str, Any]:
    """The arguments of `CheckpointStore.save` at a step; every tensor holds other random numbers."""
    generator = torch.Generator().manual_seed(step)
    table = torch.randn(num_elements, generator=generator)
    return {
        "weights": {"embedding.weight": table, "norm.weight": torch.randn(7, generator=generator)},
        "optimizer": {
            "exp_avg/embedding.weight": torch.randn(num_elements, generator=generator),
            "step/embedding.weight": torch.tensor(float(step)),
        },
        "state": {"progress": {"step": step, "best_val_loss": None}, "scale": 0.1 * step},
        "texts": TEXTS,
    }


def save_steps(store: CheckpointStore, *steps: int) -> None:
    """Saves `content` of each step."""
    for step in steps:
        store.save(step, **content(step))


def assert_holds(checkpoint: Checkpoint, step: int, num_elements: int = 1000) -> None:
    """The checkpoint is, bit for bit, what `content` gave for the step."""
    expected = content(step, num_elements)
    assert checkpoint.step == step
    for found, wanted in (
        (checkpoint.weights, expected["weights"]),
        (checkpoint.optimizer, expected["optimizer"]),
    ):
        assert found.keys() == wanted.keys()
        assert all(torch.equal(found[name], wanted[name]) for name in wanted)
    assert checkpoint.state == expected["state"]
    assert checkpoint.texts == TEXTS


def assert_newest_is(store: CheckpointStore, step: int) -> None:
    """The newest good checkpoint is of the step and holds its content."""
    path = store.newest_good()
    assert path == store.path_of(step)
    assert_holds(read_checkpoint(path), step)
