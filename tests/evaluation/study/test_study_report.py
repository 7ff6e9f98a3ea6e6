"""What a study says at its end, from runs whose losses are known."""

import json
from pathlib import Path
from statistics import stdev
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from evaluation.study.command import _carry_out, _parse, main
from evaluation.study.report import Findings, write_report
from evaluation.study.study import open_study
from parallax.errors import RunError


def carry_out(file: Path, folder: Path) -> Findings:
    given = _parse([str(file), "--output", str(folder), "--nice", "0", "--jobs", "4"])
    found = _carry_out(open_study(file, folder), given, "python -m evaluation.study small.yaml", Console())
    assert found is not None
    return found


def test_the_report_has_every_figure_of_the_runs(
    write_study: Any, tmp_path: Path, stand_in_training: Path
) -> None:
    findings = carry_out(write_study({"arms": {"deep": {"model.num_layers": 2}}}), tmp_path / "out")
    # 5 arms at two rates, and 4 seeds more of each at the better one.
    assert len(stand_in_training.read_text().split()) == 5 * (2 + 4)
    assert findings.losses("swap-2") == pytest.approx([3.0, 3.01, 3.02, 3.03, 3.04])
    assert findings.differences("swap-2", "self-1") == pytest.approx([0.0] * 5)
    write_report(findings, tmp_path / "out", ["no difference shown"])
    page, data = (tmp_path / "out/study.md").read_text(), json.loads((tmp_path / "out/study.json").read_text())
    assert "30 runs, 0.0 hours in training steps, summed over runs; 5 paired seeds" in page
    assert "- no difference shown\n" in page
    assert "| swap-2 | 3.2000 | **3.0000** |" in page
    assert "- swap-2: the best rate, 0.003, is the highest tried; a better one may lie beyond" in page
    assert f"| swap-2 | 0.003 | 3.0200 | {stdev([0, 0.01, 0.02, 0.03, 0.04]):.4f} |" in page
    assert "| swap-2 | single | +0.0000 | 0.0000 | 0.0x |" in page
    assert "| swap-1 (the same: self-1) | use_swap=true, num_loops=1 |" in page
    assert data["tuned"]["swap-2"] == {"rate": 0.003, "losses": {"0.001": 3.2, "0.003": 3.0}, "edge": "highest"}
    assert data["arms"]["single"]["made_equal"] == "parameters"
    assert data["arms"]["single"]["deviation"] == 0
    assert {Path(run["folder"]).parts[0] for run in data["runs"]} == {"runs"}
    assert len({run["id"] for run in data["runs"]}) == 30
    assert {run["val_loss"] for run in data["runs"] if run["arm"] == "deep" and run["seed"] == 3} == {3.03}


def test_the_comparison_is_asked_for_what_the_file_plans(
    write_study: Any,
    tmp_path: Path,
    stand_in_training: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    asked: dict[str, Any] = {}

    def compare(arms: dict[str, list[Path]], **words: Any) -> SimpleNamespace:
        asked.update(words, arms=arms)
        return SimpleNamespace(verdicts=["the first against the second: no difference shown"])

    monkeypatch.setattr("evaluation.study.command.compare_runs", compare)
    changes = {"reference": "self-1", "comparisons": [["swap-2", "self-1"]], "by": "flops"}
    file = write_study(changes | {"baselines": {}})
    assert main([str(file), "--output", str(tmp_path / "out"), "--jobs", "4"]) == 0
    # Reading its own or its neighbour's is the same with one pass.
    assert (asked["planned"], asked["baseline"]) == ([("swap-2", "swap-1")], "swap-1")
    assert (asked["by"], asked["title"], asked["output"]) == ("flops", "Small", tmp_path / "out" / "comparison")
    assert list(asked["arms"]) == ["swap-1", "swap-2", "self-2"]
    names = [path.name.rpartition("-")[0] for path in asked["arms"]["self-2"]]
    assert names == [f"self-2-lr0.003-seed{seed}" for seed in range(5)]
    assert "verdict  the first against the second: no difference shown\n" in capsys.readouterr().out
    assert "- the first against the second: no difference shown\n" in (tmp_path / "out/study.md").read_text()
    assert (tmp_path / "out/study.yaml").read_text() == file.read_text()


def test_a_run_that_diverges_at_the_tuned_rate_ends_the_study(
    write_study: Any, tmp_path: Path, stand_in_training: Path
) -> None:
    file = write_study({"seeds": [0, 1, 2, 3, 8]})
    with pytest.raises(RunError, match=r"swap-1-lr0.003-seed8-\w+ diverged at the rate .* tune on more seeds"):
        carry_out(file, tmp_path / "out")
