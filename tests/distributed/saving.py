"""Saving and loading of the parts of one small training, as one rank does it."""

from pathlib import Path
from typing import NamedTuple

import torch
import torch.distributed as dist
from parity import Case, Part, Ready, backward, ready
from sharded_steps import checkpoint_group

from parallax.checkpoint.load import read_checkpoint
from parallax.checkpoint.sharded_store import ShardedStore
from parallax.runtime.piece import Piece
from parallax.train.elastic import restore_optimizer_state, restore_weights

Parts = dict[str, Part]


class Saved(NamedTuple):
    """What a rank held when it saved, and after one further step."""

    at_save: Parts
    later: Parts


def train_and_save(case: Case, run: Path, *, asynchronous: bool = False) -> Saved:
    """One step, a checkpoint, another step; an asynchronous save is still under way during that one."""
    part = ready(case)
    _step(part, 0)
    at_save = _held(part)
    store = store_of(run)
    moments, extra = part.engine.optimizer_pieces()
    save = store.start_save if asynchronous else store.save
    save(
        1,
        pieces=part.engine.weight_pieces(),
        optimizer_pieces=moments,
        state={"optimizer": extra},
        texts={"config.yaml": "seed: 0\n"},
    )
    _step(part, 1)
    store.finish()
    return Saved(at_save, _held(part))


def load_and_step(case: Case, run: Path) -> Saved:
    """What a rank of another layout holds once it has loaded the run's checkpoint, and after one further step."""
    return load_and_go_on(case, run)[1]


def load_and_go_on(case: Case, run: Path) -> tuple[Ready, Saved]:
    """The same, and this rank's part after that step."""
    part = ready(case)
    _scramble(part)
    store = store_of(run)
    folder = store.newest_good()
    assert folder is not None
    engine, placement = part.engine, part.placement
    restore_weights(folder, engine.model, placement, store.group)
    extra = read_checkpoint(folder, verify=False).state["optimizer"]
    restore_optimizer_state(folder, engine, extra, store.group)
    loaded = _held(part)
    _step(part, 1)
    return part, Saved(loaded, _held(part))


def store_of(run: Path) -> ShardedStore:
    """The run's store, over all ranks of this process's pool, if it is in one."""
    group = checkpoint_group() if dist.is_initialized() and dist.get_world_size() > 1 else None
    return ShardedStore(run, keep_last=9, group=group)


def _step(part: Ready, number: int) -> None:
    backward(part, number)
    part.engine.clip_and_step(0.1)


def _scramble(part: Ready) -> None:
    """Nothing of what was drawn may be mistaken for what is loaded."""
    with torch.no_grad():
        for piece in part.engine.weight_pieces().values():
            piece.local.fill_(float("nan"))


def _held(part: Ready) -> Parts:
    moments, _ = part.engine.optimizer_pieces()
    pieces = {**part.engine.weight_pieces(), **moments}
    return {name: _part(piece) for name, piece in pieces.items()}


def _part(piece: Piece) -> Part:
    rows = piece.local.clone().double()
    return Part(piece.first_row, tuple(piece.shape), rows) if piece.shape else Part(0, (1,), rows.view(1))
