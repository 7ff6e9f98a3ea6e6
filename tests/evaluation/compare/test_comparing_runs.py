"""Run folders in, verdicts and reports out."""

import json
import re
from pathlib import Path

import pytest
from run_folders import write_arm, write_run

from evaluation.compare.command import compare_runs, main
from evaluation.compare.curves import pareto

Output = pytest.CaptureFixture[str]


@pytest.fixture
def two_arms(tmp_path: Path) -> list[Path]:
    good = write_arm(tmp_path, "swap", [2.00, 2.03, 1.98, 2.01, 2.02])
    return good + write_arm(tmp_path, "self", [2.10, 2.12, 2.09, 2.12, 2.11], use_swap=False)


def compare(paths: list[Path], *more: str) -> int:
    return main(["--runs", *map(str, paths), *more])


def refuse(capsys: Output, paths: list[Path], *more: str) -> str:
    assert compare(paths, *more) == 2
    text = capsys.readouterr()
    assert text.out == ""
    assert re.fullmatch(r"error: [^\n]+\n", text.err), text.err
    return text.err


def test_arms_are_found_and_the_verdict_is_plain(two_arms: list[Path], capsys: Output) -> None:
    assert compare(two_arms, "--baseline", "self-0") == 0
    text = capsys.readouterr().out
    assert "use_swap=true against use_swap=false: better by 0.100 ± 0.012 nats, 5 paired seeds" in text
    assert re.search(r"model\.use_swap +True +False", text)


def test_noise_shows_no_difference(tmp_path: Path, capsys: Output) -> None:
    paths = write_arm(tmp_path, "a", [2.0, 2.2, 1.9]) + write_arm(tmp_path, "b", [2.1, 2.0, 2.1], lr=2e-3)
    assert compare(paths) == 0
    text = capsys.readouterr().out
    assert "lr=0.002 min_lr=0.0002 against lr=0.001 min_lr=0.0001: no difference shown (+0.033 ± " in text


def test_the_reports_hold_what_was_found_and_are_the_same_again(two_arms: list[Path], tmp_path: Path) -> None:
    first, second = tmp_path / "one", tmp_path / "two"
    for folder in (first, second):
        assert compare(two_arms, "--by", "flops", "--output", str(folder)) == 0
    for name in ("report.json", "report.html", "runs.csv"):
        assert (first / name).read_bytes() == (second / name).read_bytes()
    data = json.loads((first / "report.json").read_text())
    assert [arm["mean_final"] for arm in data["arms"]] == pytest.approx([2.008, 2.108])
    assert data["arms"][0]["curve"][0] == pytest.approx({"x": 1e6, "loss": 3.008, "low": 2.98, "high": 3.03})
    assert [arm["on_front"] for arm in data["arms"]] == [True, False]
    html = (first / "report.html").read_text()
    assert data["sha256"] in html
    assert html.count("<svg") == 3
    assert not re.search(r"""(src|href)=["']?https?:|<script|@import""", html)
    assert (first / "runs.csv").read_text().count("\n") == 11


def test_another_loss_is_another_digest(two_arms: list[Path], tmp_path: Path) -> None:
    for folder, seed in (("one", 5), ("two", 6)):
        extra = write_run(tmp_path / f"swap-{seed}", [3.0, 2.0 + seed / 100], seed=seed)
        assert compare([*two_arms, extra], "--output", str(tmp_path / folder)) == 0
    digests = {json.loads((tmp_path / name / "report.json").read_text())["sha256"] for name in ("one", "two")}
    assert len(digests) == 2


def test_a_study_names_arms_and_pairs(two_arms: list[Path], tmp_path: Path) -> None:
    found = compare_runs(
        {"swap": two_arms[:5], "self": two_arms[5:]},
        baseline="swap",
        by="kv_bytes",
        output=tmp_path / "out",
        title="Does it help?",
        planned=[("swap", "self")],
    )
    [verdict] = found.verdicts
    assert str(verdict) == "swap against self: better by 0.100 ± 0.012 nats, 5 paired seeds"


def test_a_point_is_on_the_front_unless_another_beats_it() -> None:
    points = [("a", 1.0, 3.0), ("b", 2.0, 2.0), ("c", 2.0, 2.5), ("d", 3.0, 2.0), ("e", 3.0, 1.0)]
    assert pareto(points) == ["a", "b", "e"]


def test_runs_on_other_data_are_refused(two_arms: list[Path], tmp_path: Path, capsys: Output) -> None:
    other = write_run(tmp_path / "other", [2.0], corpus="e" * 64, use_swap=False, seed=9)
    said = refuse(capsys, [*two_arms, other])
    assert "swap-0 and " in said
    assert "other were validated on different data: text (fingerprint) ffff" in said


def test_what_cannot_be_compared_is_one_line(two_arms: list[Path], tmp_path: Path, capsys: Output) -> None:
    assert "no run lives here; did you mean" in refuse(capsys, [tmp_path / "swap-00", two_arms[0]])
    assert "is given twice" in refuse(capsys, [two_arms[0], *two_arms])
    assert "differ in their seed alone" in refuse(capsys, two_arms[:5])
    assert "--baseline nothing: no such arm or run" in refuse(capsys, two_arms, "--baseline", "nothing")
    empty = write_run(tmp_path / "empty", [], lr=5e-3)
    assert "has no val_loss yet" in refuse(capsys, [two_arms[0], empty])
    (two_arms[1] / "checkpoints" / "step-00000010" / "manifest.json").unlink()
    assert "it has no checkpoint" in refuse(capsys, two_arms)


def test_a_damaged_journal_line_is_named(two_arms: list[Path], capsys: Output) -> None:
    journal = two_arms[3] / "journal.jsonl"
    lines = journal.read_text().splitlines()
    journal.write_text("\n".join([lines[0], "{oops", *lines[1:]]) + "\n")
    assert f"{journal}: line 2 is damaged" in refuse(capsys, two_arms)


def test_a_folder_of_something_else_is_kept(two_arms: list[Path], tmp_path: Path, capsys: Output) -> None:
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "thesis.txt").write_text("years")
    assert compare(two_arms, "--output", str(tmp_path / "precious")) == 2
    assert "holds 'thesis.txt' and no report.json" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "precious").iterdir()] == ["thesis.txt"]


def test_arms_without_a_common_seed_are_refused(tmp_path: Path, capsys: Output) -> None:
    paths = [write_run(tmp_path / "a", [2.0], seed=1), write_run(tmp_path / "b", [2.0], seed=2, lr=2e-3)]
    assert "no seed in common" in refuse(capsys, paths)


def test_an_experiment_is_read_from_mlflow_and_keeps_its_comparison_once(tmp_path: Path, capsys: Output) -> None:
    from mlflow import MlflowClient

    uri = f"sqlite:///{tmp_path}/mlflow.db"
    client = MlflowClient(uri)
    experiment = client.create_experiment("swaps", artifact_location=(tmp_path / "artifacts").as_uri())
    client.create_experiment("nothing")
    paths = write_arm(tmp_path, "a", [2.0, 2.1]) + write_arm(tmp_path, "b", [2.2, 2.4], lr=2e-3)
    for path in paths:
        run = client.create_run(experiment).info.run_id
        client.log_param(run, "run.dir", str(path))
        client.set_terminated(run)
    for _ in range(2):
        assert main(["--experiment", "swaps", "--uri", uri, "--output", str(tmp_path / "out")]) == 0
    [kept] = client.search_runs([experiment], "tags.`comparison.title` = 'Experiment swaps'")
    assert "report.html" in {file.path for file in client.list_artifacts(kept.info.run_id)}
    capsys.readouterr()
    assert main(["--experiment", "nothing", "--uri", uri]) == 2
    assert "it has no finished run" in capsys.readouterr().err
    assert main(["--experiment", "swapz", "--uri", uri]) == 2
    assert "did you mean swaps?" in capsys.readouterr().err
