"""A started save goes on beside the training: it keeps what was there at its start, and tells how it ended."""

import errno
import os
from collections.abc import Callable
from pathlib import Path
from threading import Event
from typing import Any

import pytest
import torch
from saved_steps import TEXTS, assert_newest_is, content

from parallax.checkpoint.sharded_store import ShardedStore
from parallax.checkpoint.store import CheckpointStore
from parallax.checkpoint.write import write_checkpoint
from parallax.errors import DiskFullError
from parallax.runtime.piece import whole_piece


@pytest.fixture
def store(tmp_path: Path) -> ShardedStore:
    """Of one process."""
    return ShardedStore(tmp_path / "run" / "checkpoints", 9)


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Event:
    """Files are written once it is set."""
    opened = Event()

    def write(*arguments: Any, **named: Any) -> None:
        assert opened.wait(30)
        write_checkpoint(*arguments, **named)

    monkeypatch.setattr("parallax.checkpoint.store.write_checkpoint", write)
    return opened


def arguments(step: int) -> dict[str, Any]:
    """`content` of a step as pieces."""
    held = content(step)
    return {
        "pieces": {name: whole_piece(tensor) for name, tensor in held["weights"].items()},
        "optimizer_pieces": {name: whole_piece(tensor) for name, tensor in held["optimizer"].items()},
        "state": held["state"],
        "texts": TEXTS,
    }


def reader(store: ShardedStore) -> CheckpointStore:
    return CheckpointStore(store.folder, 9, report=lambda _: None)


def test_one_process_saves_the_form_that_it_always_had(store: ShardedStore) -> None:
    path = store.save(1, **arguments(1))
    assert_newest_is(reader(store), 1)
    assert {"model.safetensors", "optimizer.safetensors"} < {file.name for file in path.iterdir()}
    assert '"format_version": 1' in (path / "manifest.json").read_text()


def test_training_during_a_save_does_not_change_what_is_saved(store: ShardedStore, gate: Event) -> None:
    held = arguments(1)
    store.start_save(1, **held)
    with torch.no_grad():
        for piece in (*held["pieces"].values(), *held["optimizer_pieces"].values()):
            piece.local.zero_()
    held["state"]["progress"]["step"] = 2
    assert store.is_saving
    assert store.steps() == [], "it counts only once it is committed"
    gate.set()
    store.finish()
    assert not store.is_saving
    assert_newest_is(reader(store), 1)


def test_the_next_save_waits_for_the_one_before(store: ShardedStore, gate: Event) -> None:
    gate.set()
    for step in (1, 2, 3):
        store.start_save(step, **arguments(step))
        assert store.steps() == list(range(1, step)) or not store.is_saving
    store.finish()
    for step in (1, 2, 3):
        assert store.path_of(step).is_dir()
    assert_newest_is(reader(store), 3)


@pytest.mark.parametrize("boundary", ["finish", "save", "start_save"])
def test_what_a_save_failed_with_is_raised_once_at_the_next_boundary(
    boundary: str, store: ShardedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.save(1, **arguments(1))

    def refuse(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    boundaries: dict[str, Callable[[], Any]] = {
        "finish": store.finish,
        "save": lambda: store.save(3, **arguments(3)),
        "start_save": lambda: store.start_save(3, **arguments(3)),
    }
    with monkeypatch.context() as full:
        full.setattr(os, "fsync", refuse)
        store.start_save(2, **arguments(2))
        with pytest.raises(DiskFullError, match="step-00000002"):
            boundaries[boundary]()
    assert_newest_is(reader(store), 1)
    store.save(3, **arguments(3))
    store.finish()
    assert_newest_is(reader(store), 3)


def test_one_process_does_not_save_a_part(store: ShardedStore) -> None:
    held = arguments(1)
    name, piece = next(iter(held["pieces"].items()))
    held["pieces"][name] = type(piece)(piece.local[:5], 0, piece.shape)
    with pytest.raises(ValueError, match=rf"{name}: one process holds \(5,\) of \(1000,\)"):
        store.save(1, **held)
