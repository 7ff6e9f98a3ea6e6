from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from saved_steps import assert_newest_is, content, save_steps

from parallax.checkpoint.load import read_checkpoint
from parallax.checkpoint.store import CheckpointStore
from parallax.errors import CheckpointError

FILES = (
    "config.yaml",
    "manifest.json",
    "model.safetensors",
    "optimizer.safetensors",
    "state.json",
    "tokenizer.json",
)


def test_these_are_all_files_of_a_checkpoint(store: CheckpointStore) -> None:
    assert sorted(file.name for file in store.save(1, **content(1)).iterdir()) == sorted(FILES)


@pytest.mark.parametrize("name", FILES)
@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(share=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_one_flipped_bit_is_noticed_and_the_older_checkpoint_chosen(
    store: CheckpointStore, reports: list[str], name: str, share: float, bit: int
) -> None:
    save_steps(store, 1, 2)
    reports.clear()
    path = store.path_of(2) / name
    data = bytearray(path.read_bytes())
    data[int(share * len(data))] ^= 1 << bit
    path.write_bytes(data)
    assert_newest_is(store, 1)
    assert len(reports) == 1
    assert str(store.path_of(2)) in reports[0]
    assert name in reports[0]


@pytest.mark.parametrize("name", FILES)
def test_a_truncated_file_is_noticed(store: CheckpointStore, reports: list[str], name: str) -> None:
    save_steps(store, 1, 2)
    path = store.path_of(2) / name
    path.write_bytes(path.read_bytes()[:-2])
    assert_newest_is(store, 1)
    assert store.steps() == [1]
    assert name in reports[0]


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_noticed(store: CheckpointStore, reports: list[str], name: str) -> None:
    save_steps(store, 1, 2)
    (store.path_of(2) / name).unlink()
    assert_newest_is(store, 1)
    assert store.steps() == [1]
    assert name in reports[0]


def test_a_file_that_cannot_be_read_is_noticed(store: CheckpointStore, reports: list[str]) -> None:
    save_steps(store, 1, 2)
    path = store.path_of(2) / "config.yaml"
    size = path.stat().st_size
    path.unlink()
    path.symlink_to("/proc/self/mem")
    assert size != 0
    assert_newest_is(store, 1)
    assert "config.yaml" in reports[0]


def test_a_manifest_that_is_json_but_no_manifest_is_noticed(store: CheckpointStore, reports: list[str]) -> None:
    save_steps(store, 1, 2)
    for text in ("[]", "{}", "null", '{"checksum": "0"}'):
        (store.path_of(2) / "manifest.json").write_text(text)
        assert_newest_is(store, 1)
        assert "manifest.json" in reports[-1]


def test_no_damaged_checkpoint_is_ever_the_newest_good(store: CheckpointStore, reports: list[str]) -> None:
    save_steps(store, 1, 2)
    for step in (1, 2):
        _damage(store, step)
    assert store.newest_good() is None
    assert len(reports) == 2


def test_a_damaged_checkpoint_that_is_named_is_refused_with_the_file(store: CheckpointStore) -> None:
    save_steps(store, 1, 2)
    _damage(store, 2)
    with pytest.raises(
        CheckpointError, match=r"step-00000002 is damaged: the SHA-256 of model\.safetensors is "
    ) as e:
        read_checkpoint(store.path_of(2))
    assert "\n" not in str(e.value)


def test_a_run_with_nothing_but_damage_is_refused(store: CheckpointStore) -> None:
    save_steps(store, 1)
    _damage(store, 1)
    with pytest.raises(CheckpointError, match="holds no good checkpoint: all 1 are damaged"):
        read_checkpoint(store.folder, report=lambda _: None)


def test_a_damaged_best_is_reported_and_not_returned(store: CheckpointStore, reports: list[str]) -> None:
    save_steps(store, 1, 2)
    store.mark_best(1, 2.0)
    _damage(store, 1)
    assert store.best() is None
    assert "best checkpoint" in reports[0]


@pytest.mark.parametrize("text", ["", "{}", '{"step": 1}', "[1]", '{"step": "1", "val_loss": 2.0}'])
def test_a_damaged_pointer_is_named(store: CheckpointStore, text: str) -> None:
    save_steps(store, 1)
    (store.folder / "best.json").write_text(text)
    with pytest.raises(CheckpointError, match=r"best\.json is damaged"):
        store.best()


def _damage(store: CheckpointStore, step: int) -> None:
    """Changes a byte in the middle of the weights, which leaves the size as it was."""
    path: Path = store.path_of(step) / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
