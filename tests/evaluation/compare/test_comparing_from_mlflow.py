"""Runs whose folders are elsewhere or gone, read from MLflow alone."""

import json
import re
import shutil
from pathlib import Path

import pytest
import yaml
from mlflow import MlflowClient
from run_folders import TEXT, write_arm, write_run

from evaluation.compare.command import main
from parallax.metrics.journal import read_journal
from parallax.metrics.sinks.mlflow_run import MlflowRun
from parallax.metrics.sinks.protocol import TrackedRun

Output = pytest.CaptureFixture[str]
COMMIT = "2f7c9a1b" * 5


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"sqlite:///{tmp_path_factory.mktemp('store')}/mlflow.db"


def track(folder: Path, uri: str, experiment: str, *, hide: str = "", engine: str = "auto", **tags: str) -> str:
    """Tells MLflow of a run as training does, but for metrics of one name; returns its id."""
    config = yaml.safe_load((folder / "config.yaml").read_text())
    # The folder has what was asked for, the parameters what the launcher made of it.
    config["parallel"]["engine"] = engine
    known = {"data.fingerprint": TEXT, "host": "there"} | tags
    run = MlflowRun(TrackedRun(name=folder.name, directory=folder, config=config, tags=known), uri, experiment)
    lines = read_journal(folder / "journal.jsonl")
    run.log([{key: value for key, value in line.items() if key != hide} for line in lines])
    run.finish("FINISHED")
    run.log_artifact(folder / "config.yaml")
    return run.run_id


def compare(uri: str, *words: object) -> int:
    return main(["--uri", uri, *map(str, words)])


def refuse(capsys: Output, uri: str, *words: object) -> str:
    capsys.readouterr()
    assert compare(uri, *words) == 2
    text = capsys.readouterr()
    assert text.out == ""
    assert re.fullmatch(r"error: [^\n]+\n", text.err), text.err
    return text.err


def forget_files(uri: str) -> None:
    """As on a machine that has a copy of the store and nothing beside it."""
    shutil.rmtree(Path(uri.removeprefix("sqlite:///")).parent / "mlartifacts")


@pytest.mark.parametrize("with_files", [True, False])
def test_runs_whose_folders_are_gone_compare_as_they_did(tmp_path: Path, uri: str, with_files: bool) -> None:
    experiment = f"gone-{with_files}"
    paths = write_arm(tmp_path, "a", [2.0, 2.1]) + write_arm(tmp_path, "b", [2.2, 2.4], lr=2e-3)
    # A name that reads as a number.
    paths.append(write_run(tmp_path / "7", [3.0, 2.3], seed=2))
    paths.append(write_run(tmp_path / "null", [3.0, 2.5], seed=2, lr=2e-3))
    for path in paths:
        track(path, uri, experiment, engine="native" if with_files else "auto")
    assert compare(uri, "--experiment", experiment, "--output", tmp_path / "before") == 0
    for path in paths:
        shutil.rmtree(path)
    if not with_files:
        forget_files(uri)
    assert compare(uri, "--experiment", experiment, "--output", tmp_path / "after") == 0
    for name in ("report.json", "report.html", "runs.csv"):
        assert (tmp_path / "before" / name).read_bytes() == (tmp_path / "after" / name).read_bytes()


def test_a_setting_that_a_restart_changed_counts_as_it_was_last(tmp_path: Path, uri: str, capsys: Output) -> None:
    paths = [write_run(tmp_path / "one", [2.0]), write_run(tmp_path / "two", [2.1])]
    for path in paths:
        track(path, uri, "changed")
    config = paths[1] / "config.yaml"
    config.write_text(config.read_text().replace("max_steps: 10", "max_steps: 77"))
    track(paths[1], uri, "changed")
    for path in paths:
        shutil.rmtree(path)
    forget_files(uri)
    assert compare(uri, "--experiment", "changed") == 0
    assert re.search(r"train\.max_steps +10 +77", capsys.readouterr().out)


def test_what_mlflow_must_know_and_does_not_is_one_line(tmp_path: Path, uri: str, capsys: Output) -> None:
    cases: list[tuple[str, str, str, str]] = [
        ("nameless", "", "", "has no tag data.fingerprint, which says what it was validated on"),
        ("other", "", "e" * 64, "were validated on different data: text (fingerprint) "),
        ("unmeasured", "val_loss", TEXT, "it has no val_loss"),
        ("unpaid", "flops", TEXT, "it has a val_loss of step 10 and no flops; where its folder is, "),
    ]
    known = write_run(tmp_path / "known", [2.0])
    for experiment, hide, fingerprint, said in cases:
        broken = write_run(tmp_path / experiment, [2.1], lr=2e-3)
        run_id = track(broken, uri, experiment, hide=hide, **{"data.fingerprint": fingerprint})
        if not fingerprint:
            MlflowClient(uri).delete_tag(run_id, "data.fingerprint")
        shutil.rmtree(broken)
        assert said in refuse(capsys, uri, "--runs", known, run_id)
        if experiment != "other":
            assert f"MLflow run {run_id}: " in refuse(capsys, uri, "--experiment", experiment)


def test_what_a_launcher_settled_is_no_difference(tmp_path: Path, uri: str, capsys: Output) -> None:
    paths = write_arm(tmp_path, "a", [2.0, 2.1]) + write_arm(tmp_path, "b", [2.2, 2.4], lr=2e-3)
    for path in paths:
        track(path, uri, "settled", engine="native")
        start = {"step": 0, "event": "start", "engine": "native"}
        (path / "events.jsonl").write_text(json.dumps(start) + "\n")
    shutil.rmtree(paths[0])
    assert compare(uri, "--experiment", "settled") == 0
    assert "engine" not in capsys.readouterr().out
    forget_files(uri)
    said = refuse(capsys, uri, "--experiment", "settled")
    assert (
        "is known by its parameters alone, in which parallel.engine=native is what its launcher made of it" in said
    )


def test_a_run_is_given_by_its_id_and_the_nearest_is_named(tmp_path: Path, uri: str, capsys: Output) -> None:
    here, gone = write_run(tmp_path / "here", [2.0]), write_run(tmp_path / "gone", [2.1], lr=2e-3)
    first, second = (track(path, uri, "ids") for path in (here, gone))
    shutil.rmtree(gone)
    assert compare(uri, "--runs", first, second) == 0
    assert f"{here} is given twice" in refuse(capsys, uri, "--runs", here, first)
    missing = second[:-1] + ("0" if second[-1] != "0" else "1")
    assert f"has no such run; did you mean {second}?" in refuse(capsys, uri, "--runs", here, missing)


def test_a_folder_that_another_run_has_by_now_is_not_taken_for_the_first(tmp_path: Path, uri: str) -> None:
    first = write_run(tmp_path / "reused", [9.0])
    track(first, uri, "reused", host="here")
    shutil.rmtree(first)
    again = write_run(tmp_path / "reused", [2.0])
    track(again, uri, "reused", host="here")
    track(write_run(tmp_path / "other", [2.5], lr=2e-3), uri, "reused", host="here")
    assert compare(uri, "--experiment", "reused", "--output", tmp_path / "out") == 0
    arms = json.loads((tmp_path / "out" / "report.json").read_text())["arms"]
    assert sorted(arm["mean_final"] for arm in arms) == [2.0, 2.5]


def test_commits_that_differ_are_told_by_arm(tmp_path: Path, uri: str, capsys: Output) -> None:
    one, two = write_run(tmp_path / "one", [2.0]), write_run(tmp_path / "two", [2.1], lr=2e-3)
    start = {"step": 0, "event": "start", "git_commit": COMMIT, "git_dirty": False}
    (one / "events.jsonl").write_text(json.dumps(start) + "\n")
    run_id = track(two, uri, "commits", **{"git.commit": COMMIT, "git.dirty": "true"})
    shutil.rmtree(two)
    assert compare(uri, "--runs", one, run_id) == 0
    assert re.search(r"git commit +2f7c9a1b2f7c +2f7c9a1b2f7c with changes\n", capsys.readouterr().out)
