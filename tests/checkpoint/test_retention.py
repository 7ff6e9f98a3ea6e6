from collections.abc import Callable
from pathlib import Path

import pytest
from saved_steps import assert_holds, content, save_steps

from parallax.checkpoint.load import read_checkpoint
from parallax.checkpoint.store import CheckpointStore

MakeStore = Callable[[int], CheckpointStore]


def test_the_newest_are_kept(make_store: MakeStore) -> None:
    store = make_store(2)
    save_steps(store, 1, 2, 3, 4)
    assert store.all_steps() == [3, 4]


def test_the_best_is_kept_beside_the_newest(make_store: MakeStore) -> None:
    store = make_store(2)
    save_steps(store, 1, 2)
    store.mark_best(2, 1.5)
    save_steps(store, 3, 4, 5)
    assert store.all_steps() == [2, 4, 5]
    best = store.best()
    assert best is not None
    assert_holds(read_checkpoint(best), 2)


def test_a_former_best_goes_when_another_is_marked(make_store: MakeStore) -> None:
    store = make_store(1)
    save_steps(store, 1)
    store.mark_best(1, 2.0)
    save_steps(store, 2)
    assert store.all_steps() == [1, 2]
    store.mark_best(2, 1.0)
    assert store.all_steps() == [2]
    pointer = store.best_pointer()
    assert pointer is not None
    assert (pointer.step, pointer.val_loss) == (2, 1.0)


def test_only_a_saved_step_can_be_the_best(store: CheckpointStore) -> None:
    save_steps(store, 1)
    with pytest.raises(ValueError, match="step 2 has no complete checkpoint"):
        store.mark_best(2, 1.0)
    assert store.best_pointer() is None


def test_the_one_just_written_stays_even_when_it_is_the_oldest(make_store: MakeStore) -> None:
    store = make_store(1)
    save_steps(store, 10, 5)
    assert store.all_steps() == [5, 10]


def test_a_damaged_one_does_not_take_the_place_of_a_good_one(make_store: MakeStore) -> None:
    store = make_store(2)
    save_steps(store, 1, 2)
    (store.path_of(2) / "optimizer.safetensors").unlink()
    save_steps(store, 3)
    assert store.steps() == [1, 3]
    assert store.all_steps() == [1, 2, 3]


def test_a_damaged_one_goes_once_enough_good_ones_are_newer(make_store: MakeStore) -> None:
    store = make_store(2)
    save_steps(store, 1)
    (store.path_of(1) / "manifest.json").unlink()
    save_steps(store, 2, 3)
    assert store.all_steps() == [2, 3]


def test_nothing_is_deleted_while_the_best_is_unknown(make_store: MakeStore, reports: list[str]) -> None:
    store = make_store(1)
    save_steps(store, 1)
    (store.folder / "best.json").write_text("{")
    save_steps(store, 2)
    assert store.all_steps() == [1, 2]
    assert "best.json" in reports[0]


def test_files_that_are_not_checkpoints_are_left_alone(make_store: MakeStore) -> None:
    store = make_store(1)
    save_steps(store, 1)
    store.path_of(1).rename(store.folder / "my-favourite")
    (store.folder / "step-1").mkdir()
    (store.folder / "notes.txt").write_text("keep")
    save_steps(store, 2, 3)
    names = sorted(path.name for path in store.folder.iterdir())
    assert names == ["my-favourite", "notes.txt", "step-00000003", "step-1"]


def test_a_folder_that_cannot_be_deleted_is_reported_and_the_save_stands(
    make_store: MakeStore, reports: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = make_store(1)
    save_steps(store, 1)

    def refuse(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("parallax.checkpoint.store.remove_directory", refuse)
    path = store.save(2, **content(2))
    assert_holds(read_checkpoint(path), 2)
    assert "step-00000001 is no longer needed and could not be deleted" in reports[0]
