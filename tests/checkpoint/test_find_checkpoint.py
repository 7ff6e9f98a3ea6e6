from pathlib import Path

import pytest
from saved_steps import save_steps

from parallax.checkpoint.load import read_checkpoint
from parallax.checkpoint.locate import find_checkpoint
from parallax.checkpoint.store import CheckpointStore
from parallax.errors import CheckpointError


@pytest.fixture
def run(store: CheckpointStore) -> Path:
    """A run folder with steps 1, 2 and 3, of which 2 is the best."""
    save_steps(store, 1, 2, 3)
    store.mark_best(2, 1.0)
    return store.folder.parent


@pytest.mark.parametrize(
    ("inside", "step"),
    [
        ("", 3),
        ("checkpoints", 3),
        ("checkpoints/step-00000001", 1),
        ("best", 2),
        ("checkpoints/best", 2),
    ],
)
def test_a_run_its_best_and_a_step_can_be_named(run: Path, inside: str, step: int) -> None:
    assert read_checkpoint(run / inside).step == step
    assert read_checkpoint(str(run / inside)).step == step


def test_a_checkpoint_may_be_copied_and_renamed(run: Path, tmp_path: Path) -> None:
    (run / "checkpoints" / "step-00000001").rename(tmp_path / "my-model")
    assert read_checkpoint(tmp_path / "my-model").step == 1


def test_a_missing_path_names_a_near_one(run: Path) -> None:
    with pytest.raises(CheckpointError, match=r"rum: no such checkpoint or run folder; did you mean .*/run\?"):
        find_checkpoint(run.parent / "rum")
    with pytest.raises(CheckpointError, match=r"no such checkpoint or run folder$"):
        find_checkpoint(run / "nowhere" / "at" / "all")


def test_a_folder_without_checkpoints_says_what_was_expected(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="holds no checkpoint; expected RUN"):
        find_checkpoint(tmp_path)


def test_a_file_inside_a_checkpoint_is_refused_with_its_folder(run: Path) -> None:
    folder = run / "checkpoints" / "step-00000001"
    with pytest.raises(CheckpointError, match=f"is a file; name the checkpoint's folder, {folder}"):
        find_checkpoint(folder / "model.safetensors")


def test_best_of_a_run_that_marked_none_is_refused(store: CheckpointStore) -> None:
    save_steps(store, 1)
    with pytest.raises(CheckpointError, match="no good checkpoint marked as the best"):
        find_checkpoint(store.folder.parent / "best")


def test_a_step_folder_without_a_manifest_is_damaged_not_empty(run: Path) -> None:
    folder = run / "checkpoints" / "step-00000003"
    (folder / "manifest.json").unlink()
    with pytest.raises(CheckpointError, match=r"is damaged: it has no manifest\.json"):
        find_checkpoint(folder)


def test_contents_are_read_only_when_they_are_to_be_verified(run: Path) -> None:
    folder = run / "checkpoints" / "step-00000003"
    state = folder / "state.json"
    state.write_text(state.read_text().replace("3", "4"))
    assert read_checkpoint(folder, verify=False).state["progress"]["step"] == 4
    with pytest.raises(CheckpointError, match=r"state\.json"):
        read_checkpoint(folder)


def test_what_cannot_be_parsed_is_damage_even_unverified(run: Path) -> None:
    folder = run / "checkpoints" / "step-00000003"
    for name in ("state.json", "model.safetensors"):
        (folder / name).write_bytes(b"{")
        with pytest.raises(CheckpointError, match=str(folder)):
            read_checkpoint(folder, verify=False)
