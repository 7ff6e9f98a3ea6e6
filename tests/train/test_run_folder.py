"""Which run may go on in which folder."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny_runs import checkpoint_steps, measured, tiny_config, train_here

from parallax.config.load import dump_config, load_config
from parallax.errors import CheckpointError, RunError
from parallax.metrics.environment import GitState
from parallax.runtime.lock import RunLock
from parallax.train.run_folder import RunFolder

Settings = Callable[..., dict[str, Any]]


@pytest.fixture
def trained(settings: Settings) -> dict[str, Any]:
    """The settings of a run that has done four steps."""
    short = settings({"train.max_steps": 4, "train.eval_every": 0})
    assert train_here(short)[0] == 0
    return short


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def events(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]


def test_the_resolved_configuration_in_the_folder_starts_the_same_run_again(
    trained: dict[str, Any], tmp_path: Path
) -> None:
    again = load_config(tmp_path / "run" / "config.yaml")
    assert again.resolved() == {**tiny_config(trained).resolved(), "run": again.resolved()["run"]}
    assert train_here({**trained, "run.dir": str(tmp_path / "other")})[0] == 0
    assert measured(tmp_path / "other") == measured(tmp_path / "run")


def test_a_longer_run_goes_on_and_says_what_changed(trained: dict[str, Any], tmp_path: Path) -> None:
    code, shown = train_here({**trained, "train.max_steps": 6, "train.log_every": 2})
    assert code == 0
    assert "changed  train.max_steps: 4 -> 6" in shown
    assert "changed  train.log_every: 1 -> 2" in shown
    assert f"resume   after step 4, from {tmp_path}/run/checkpoints/step-00000004" in shown
    assert [record["step"] for record in measured(tmp_path / "run")] == [1, 2, 3, 4, 6]
    resumed = events(tmp_path / "run")[-2]
    assert (resumed["event"], resumed["step"]) == ("resume", 4)
    assert resumed["changed"] == {"train.log_every": [1, 2], "train.max_steps": [4, 6]}
    assert load_config(tmp_path / "run" / "config.yaml").train.max_steps == 6


def test_each_start_says_which_commit_ran(
    trained: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    states = [GitState("c" * 40, "main", True), None]
    monkeypatch.setattr("parallax.train.command.source_git_state", lambda: states.pop(0))
    for steps in (5, 6):
        assert train_here({**trained, "train.max_steps": steps})[0] == 0
    first, second = [event for event in events(tmp_path / "run") if event["event"] == "resume"]
    assert (first["git_commit"], first["git_dirty"]) == ("c" * 40, True)
    assert "git_commit" not in second


@pytest.mark.parametrize(
    ("key", "old", "new"),
    [
        ("optim.lr", 0.01, 0.02),
        ("model.hidden_size", 32, 64),
        ("model.num_loops", 2, 1),
        ("seed", 3, 4),
        ("train.global_batch", 4, 8),
        ("train.precision", "fp32", "bf16"),
        ("loss.z_loss", 0.0, 0.1),
    ],
)
def test_what_a_run_keeps_for_life_is_refused_with_both_values(
    key: str, old: object, new: object, trained: dict[str, Any], tmp_path: Path
) -> None:
    before = contents(tmp_path / "run")
    with pytest.raises(RunError, match=rf"holds a run with {key}={old}, not {new}.*another run\.dir"):
        train_here({**trained, key: new, "train.max_steps": 6})
    assert {name: before[name] for name in before if name != ".lock"} == {
        name: data for name, data in contents(tmp_path / "run").items() if name != ".lock"
    }


def test_a_complete_run_is_left_as_it_is(trained: dict[str, Any], tmp_path: Path) -> None:
    before = measured(tmp_path / "run")
    code, shown = train_here(trained)
    assert code == 0
    assert "complete at step 4" in shown
    assert measured(tmp_path / "run") == before


def test_fewer_steps_than_are_done_change_nothing(trained: dict[str, Any], tmp_path: Path) -> None:
    assert train_here({**trained, "train.max_steps": 2})[0] == 0
    assert len(measured(tmp_path / "run")) == 4
    assert checkpoint_steps(tmp_path / "run") == [4]


def test_a_folder_with_other_files_is_refused_and_untouched(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.tex").write_text("years of work")
    with pytest.raises(
        RunError, match=r"holds 'thesis\.tex' and no config\.yaml; choose an empty or new run\.dir"
    ):
        train_here(settings())
    assert contents(tmp_path / "run") == {"thesis.tex": b"years of work"}


def test_a_configuration_that_somebody_wrote_is_not_overwritten(settings: Settings, tmp_path: Path) -> None:
    own = tmp_path / "run" / "config.yaml"
    own.parent.mkdir()
    own.write_text("# mine\n" + dump_config(tiny_config({"data.path": "there"})))
    before = own.read_bytes()
    with pytest.raises(RunError, match=r"config\.yaml that no run wrote"):
        train_here(settings())
    assert contents(own.parent) == {"config.yaml": before}


def test_a_start_that_failed_before_its_first_step_binds_nobody(settings: Settings, tmp_path: Path) -> None:
    """Otherwise a misspelt path would have to be misspelt for ever, or the folder be deleted by hand."""
    with pytest.raises(CheckpointError, match="typo"):
        train_here(settings({"train.init_from": str(tmp_path / "typo")}))
    code, shown = train_here(settings({"optim.lr": 1e-3, "train.max_steps": 2}))
    assert code == 0
    assert "changed" not in shown
    assert load_config(tmp_path / "run" / "config.yaml").optim.lr == 1e-3


def test_hidden_files_are_nobodys(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".DS_Store").touch()
    assert train_here(settings({"train.max_steps": 1}))[0] == 0


def test_what_a_killed_run_left_half_written_is_cleared(trained: dict[str, Any], tmp_path: Path) -> None:
    leftovers = [tmp_path / "run" / folder / ".incomplete-something-999999" for folder in ("", "checkpoints")]
    for path in leftovers:
        path.write_text("half")
    train_here(trained)
    assert not any(path.exists() for path in leftovers)


def test_a_folder_in_use_names_who_uses_it_and_nothing_changes(trained: dict[str, Any], tmp_path: Path) -> None:
    before = contents(tmp_path / "run")
    with RunLock(tmp_path / "run"), pytest.raises(RunError, match=r"in use by process \d+ on"):
        train_here({**trained, "train.max_steps": 6})
    after = contents(tmp_path / "run")
    assert {**after, ".lock": b""} == {**before, ".lock": b""}


@pytest.mark.parametrize("first", ["bf16", "fp32"])
def test_auto_keeps_the_precision_that_the_run_has(first: str, settings: Settings, tmp_path: Path) -> None:
    train_here(settings({"train.max_steps": 2, "train.precision": first}))
    code, shown = train_here(settings({"train.max_steps": 3, "train.precision": "auto"}))
    assert code == 0
    assert first in shown
    assert RunFolder(tmp_path / "run").saved_config().train.precision == first  # type: ignore[union-attr]


def test_what_auto_resolved_to_is_saved(settings: Settings, tmp_path: Path) -> None:
    train_here(settings({"train.max_steps": 1, "train.precision": "auto"}))
    assert load_config(tmp_path / "run" / "config.yaml").train.precision in ("fp32", "bf16", "fp16")


def test_other_data_are_refused_even_under_the_same_settings(
    trained: dict[str, Any], tmp_path: Path, corpus: Path
) -> None:
    from parallax.data.prepare import prepare
    from parallax.errors import DataError

    (tmp_path / "other.txt").write_text("Quite another text. " * 500)
    prepare(tmp_path / "other.txt", tmp_path / "other-data")
    with pytest.raises(DataError, match="fingerprint"):
        train_here({**trained, "data.path": str(tmp_path / "other-data"), "train.max_steps": 6})
    assert len(measured(tmp_path / "run")) == 4


def test_the_same_data_elsewhere_are_accepted(trained: dict[str, Any], tmp_path: Path, corpus: Path) -> None:
    corpus.with_name("moved").symlink_to(corpus)
    code, shown = train_here({**trained, "data.path": str(corpus.with_name("moved")), "train.max_steps": 5})
    corpus.with_name("moved").unlink()
    assert code == 0
    assert "changed  data.path" in shown


def test_a_run_may_change_its_engine_and_stage(trained: dict[str, Any], tmp_path: Path) -> None:
    other = {"parallel.engine": "deepspeed", "deepspeed.zero_stage": 3, "deepspeed.offload_optimizer": True}
    changed = RunFolder(tmp_path / "run").settle(tiny_config({**trained, "train.precision": "fp32", **other}))
    assert changed.keys() == other.keys()


def test_what_a_launcher_settled_is_not_saved(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "no")
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    monkeypatch.setenv("FSDP_VERSION", "2")
    monkeypatch.setattr("parallax.train.command.end_with", lambda launcher: None)
    assert train_here(settings({"train.max_steps": 1}))[0] == 0
    saved = load_config(tmp_path / "run" / "config.yaml").parallel
    assert (saved.engine, saved.dp_shard) == ("auto", None)
    start = events(tmp_path / "run")[0]
    assert (start["launcher"], start["engine"]) == ("accelerate", "native")
