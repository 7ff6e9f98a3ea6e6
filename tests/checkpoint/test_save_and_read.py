import logging
import os
from functools import partial
from pathlib import Path

import pytest
import torch
from saved_steps import assert_holds, assert_newest_is, content, save_steps

from parallax.checkpoint.load import read_checkpoint
from parallax.checkpoint.manifest import build_manifest
from parallax.checkpoint.store import CheckpointStore
from parallax.errors import CheckpointError
from parallax.runtime.files import STAGING_MARK


def test_what_is_saved_is_read_back_bit_for_bit(store: CheckpointStore) -> None:
    path = store.save(100, **content(100))
    assert path.name == "step-00000100"
    assert_holds(read_checkpoint(path), 100)


def test_every_value_of_state_survives_json(store: CheckpointStore) -> None:
    state = {"loss": 0.1 + 0.2, "scale": 65536.0, "tokens": 2**62, "nothing": None, "list": [1, "ä"], "on": True}
    path = store.save(1, **content(1) | {"state": state})
    assert read_checkpoint(path).state == state


def test_tensor_types_and_empty_tensors_survive(store: CheckpointStore) -> None:
    types = (torch.float32, torch.float64, torch.bfloat16, torch.float16, torch.int64, torch.uint8, torch.bool)
    weights = {str(dtype): torch.tensor([[0, 1], [1, 1]], dtype=dtype) for dtype in types}
    weights |= {"empty": torch.empty(0, 3), "another empty": torch.empty(0, 3), "scalar": torch.tensor(2.5)}
    found = read_checkpoint(store.save(1, **content(1) | {"weights": weights})).weights
    assert found.keys() == weights.keys()
    for name, tensor in weights.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor)


def test_the_newest_is_the_one_of_the_highest_step_in_whatever_order_they_were_saved(
    store: CheckpointStore,
) -> None:
    save_steps(store, 200, 1000, 300)
    assert store.steps() == [200, 300, 1000]
    assert_newest_is(store, 1000)


def test_a_store_without_a_folder_is_empty(store: CheckpointStore) -> None:
    store.clear_leftovers()
    assert (store.steps(), store.newest_good(), store.best(), store.best_pointer()) == ([], None, None, None)


def test_saving_a_step_again_leaves_the_good_one_as_it_is(store: CheckpointStore, reports: list[str]) -> None:
    path = store.save(5, **content(5))
    before = {file.name: file.stat().st_mtime_ns for file in path.iterdir()}
    assert store.save(5, **content(6)) == path
    assert {file.name: file.stat().st_mtime_ns for file in path.iterdir()} == before
    assert reports == []


def test_saving_a_step_again_replaces_a_damaged_one(store: CheckpointStore, reports: list[str]) -> None:
    path = store.save(5, **content(5))
    (path / "model.safetensors").write_bytes(b"torn")
    store.save(5, **content(5))
    assert_newest_is(store, 5)
    assert [entry.name for entry in store.folder.iterdir()] == [path.name]
    assert len(reports) == 1
    assert "replacing" in reports[0]
    assert "model.safetensors" in reports[0]


def test_files_are_as_readable_as_the_umask_allows(store: CheckpointStore) -> None:
    old = os.umask(0o027)
    try:
        path = store.save(1, **content(1))
    finally:
        os.umask(old)
    assert {oct(file.stat().st_mode & 0o777) for file in path.iterdir()} == {"0o640"}


def test_a_text_may_not_take_the_place_of_another_file(store: CheckpointStore) -> None:
    for name in ("manifest.json", "model.safetensors", "../outside", "..", ""):
        with pytest.raises(ValueError, match="name of a text"):
            store.save(1, **content(1) | {"texts": {name: ""}})
    assert list(store.folder.iterdir()) == []


def test_a_run_that_starts_clears_what_a_killed_one_left(store: CheckpointStore, reports: list[str]) -> None:
    save_steps(store, 1)
    left = store.folder / f"{STAGING_MARK}step-00000002-999999999"
    left.mkdir()
    (left / "model.safetensors").write_bytes(b"half")
    store.clear_leftovers()
    assert [entry.name for entry in store.folder.iterdir()] == ["step-00000001"]
    assert len(reports) == 1
    assert left.name in reports[0]


def test_a_half_written_folder_is_no_checkpoint(store: CheckpointStore) -> None:
    save_steps(store, 1)
    store.save(2, **content(2)).rename(store.folder / f"{STAGING_MARK}step-00000002-1")
    assert store.steps() == [1]
    assert_newest_is(store, 1)


def test_without_a_reporter_damage_is_a_logged_warning(
    store: CheckpointStore, caplog: pytest.LogCaptureFixture
) -> None:
    save_steps(store, 1, 2)
    (store.path_of(2) / "state.json").unlink()
    with caplog.at_level(logging.WARNING):
        assert read_checkpoint(store.folder).step == 1
    assert "state.json is missing" in caplog.text


def test_a_store_must_keep_at_least_one(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="keep_last=0"):
        CheckpointStore(tmp_path, keep_last=0)


def test_a_checkpoint_of_a_newer_format_is_neither_damaged_nor_passed_over(
    store: CheckpointStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_steps(store, 1)
    with monkeypatch.context() as newer:
        newer.setattr("parallax.checkpoint.manifest.FORMAT_VERSION", 3)
        newer.setattr("parallax.checkpoint.write.build_manifest", partial(build_manifest, format_version=3))
        save_steps(store, 2)
    for read in (store.newest_good, lambda: read_checkpoint(store.path_of(2))):
        with pytest.raises(CheckpointError, match=r"step-00000002 has checkpoint format 3, .* newer Parallax"):
            read()
