"""All ranks save together or not at all."""

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from sharded_steps import assert_newest_is, checkpoint_group, content, pieces, save_steps, tensors
from worker_pool import WorkerPool

from parallax.checkpoint.load_pieces import load_pieces
from parallax.checkpoint.sharded_store import ShardedStore
from parallax.errors import CheckpointError, DiskFullError
from parallax.runtime.piece import Piece, whole_piece

PoolOf = Callable[[int], WorkerPool]


def saves_with_a_full_disk(folder: Path, full_rank: int, start: bool) -> list[str]:
    """What saving step 2 raises on this rank, where only one rank's disk is full; then step 3 is saved."""
    store = ShardedStore(folder, 9, group=checkpoint_group())
    arguments = content(2, dist.get_rank(), dist.get_world_size())
    said = []
    with full_disk() if dist.get_rank() == full_rank else nothing():
        try:
            if start:
                store.start_save(2, **arguments)
                said.append("started")
                store.finish()
            else:
                store.save(2, **arguments)
        except DiskFullError as error:
            said.append(str(error))
    store.finish()
    return said


@contextmanager
def full_disk() -> Iterator[None]:
    def refuse(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    real, os.fsync = os.fsync, refuse
    try:
        yield
    finally:
        os.fsync = real


@contextmanager
def nothing() -> Iterator[None]:
    yield


@pytest.mark.parametrize("start", [False, True], ids=["at once", "in the background"])
@pytest.mark.parametrize("full_rank", [0, 1])
def test_a_full_disk_of_one_rank_fails_the_save_on_all_and_leaves_what_was_there(
    full_rank: int, start: bool, tmp_path: Path, pool_of: PoolOf
) -> None:
    pool = pool_of(2)
    pool.run(save_steps, tmp_path, 1)
    for said in pool.run(saves_with_a_full_disk, tmp_path, full_rank, start):
        assert said[:-1] == (["started"] if start else [])
        assert "step-00000002: the disk or quota is full; what was saved before is intact" in said[-1]
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001"]
    assert_newest_is(tmp_path, 1)
    pool.run(save_steps, tmp_path, 2)
    assert_newest_is(tmp_path, 2)


def test_the_newest_are_kept_and_a_good_one_is_not_written_again(tmp_path: Path, pool_of: PoolOf) -> None:
    pool_of(2).run(save_steps, tmp_path, 1, 2)
    manifest = tmp_path / "step-00000002" / "manifest.json"
    before = manifest.stat().st_mtime_ns
    pool_of(2).run(save_steps, tmp_path, 2)
    assert manifest.stat().st_mtime_ns == before
    pool_of(4).run(save_only_two, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000002", "step-00000003"]
    assert_newest_is(tmp_path, 3)


def save_only_two(folder: Path) -> None:
    save_steps(folder, 3, keep_last=2)


def test_a_damaged_checkpoint_of_the_same_step_is_replaced(tmp_path: Path, pool_of: PoolOf) -> None:
    pool_of(2).run(save_steps, tmp_path, 1)
    (tmp_path / "step-00000001" / "state.json").write_text("torn")
    pool_of(2).run(save_steps, tmp_path, 1)
    assert_newest_is(tmp_path, 1)


def save_as_best(folder: Path) -> int | None:
    store = ShardedStore(folder, 9, group=checkpoint_group())
    store.start_save(1, **content(1, dist.get_rank(), dist.get_world_size()), best_val_loss=1.5)
    store.finish()
    pointer = store.best_pointer()
    return pointer.step if pointer else None


def test_the_best_is_marked_once_its_checkpoint_is_there(tmp_path: Path, pool_of: PoolOf) -> None:
    assert pool_of(2).run(save_as_best, tmp_path) == [1, 1]


def save_without_rows(folder: Path) -> str:
    arguments = content(1, dist.get_rank(), dist.get_world_size())
    if dist.get_rank() == 1:
        del arguments["pieces"]["embedding.weight"]
    try:
        ShardedStore(folder, 9, group=checkpoint_group()).save(1, **arguments)
    except ValueError as error:
        return str(error)
    return "saved"


def test_rows_that_no_rank_holds_fail_the_save(tmp_path: Path, pool_of: PoolOf) -> None:
    for said in pool_of(2).run(save_without_rows, tmp_path):
        assert "embedding.weight" in said
    assert list(tmp_path.iterdir()) == []


def load_changed(folder: Path, change: str) -> tuple[str, bool]:
    """What loading says on this rank, where rank 1 wants something that is not there, and if anything was read."""
    rank, num_ranks = dist.get_rank(), dist.get_world_size()
    wanted = {
        name: Piece(torch.zeros_like(piece.local), piece.first_row, piece.shape)
        for name, piece in pieces(1, rank, num_ranks).items()
    }
    blank: dict[str, Any] = {"another": whole_piece(torch.zeros(3)), "norm.weight": whole_piece(torch.zeros(8))}
    if rank == 1:
        if change in blank:
            wanted[change] = blank[change]
        else:
            del wanted[change]
    try:
        load_pieces(folder / "step-00000001", wanted, group=checkpoint_group())
    except CheckpointError as error:
        return str(error), any(bool(piece.local.any()) for piece in wanted.values())
    return "loaded", all(
        torch.equal(piece.local, piece_of_step.local)
        for piece, piece_of_step in zip(wanted.values(), pieces(1, rank, num_ranks).values(), strict=True)
    )


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("another", "another is missing"),
        ("norm.weight", r"norm.weight is (7,) there and (8,) here"),
        ("tracks.1.weight", "holds tracks.1.weight, and this run has no such parameter"),
    ],
)
def test_what_does_not_fit_one_rank_is_refused_by_all_before_anything_is_read(
    change: str, said: str, tmp_path: Path, pool_of: PoolOf
) -> None:
    pool_of(2).run(save_steps, tmp_path, 1)
    for message, changed in pool_of(2).run(load_changed, tmp_path, change):
        assert said in message
        assert not changed


def load_first(folder: Path) -> list[bool]:
    """Whether each piece of this rank is what was saved."""
    held = pieces(1, dist.get_rank(), dist.get_world_size())
    wanted = {name: Piece(torch.zeros_like(p.local), p.first_row, p.shape) for name, p in held.items()}
    load_pieces(folder / "step-00000001", wanted, group=checkpoint_group())
    return [torch.equal(wanted[name].local, held[name].local) for name in held]


@pytest.mark.parametrize(("savers", "loaders"), [(4, 2), (2, 4)])
def test_other_numbers_of_ranks_load_their_rows(
    savers: int, loaders: int, tmp_path: Path, pool_of: PoolOf
) -> None:
    pool_of(savers).run(save_steps, tmp_path, 1)
    for found in pool_of(loaders).run(load_first, tmp_path):
        assert all(found)
        assert len(found) == 3 * len(tensors(1)) // 4
