"""Which runs a study has, and that their ids say what they compute and no more."""

from pathlib import Path
from typing import Any

import pytest

from evaluation.study.study import Study, open_study
from parallax.data.prepare import prepare


def ids(study: Study) -> list[str]:
    return [run.id for run in study.tuning()]


def test_every_arm_has_every_rate_and_then_every_seed(write_study: Any) -> None:
    study = open_study(write_study(), None)
    tuning = study.tuning()
    assert [(run.arm, run.rate, run.seed) for run in tuning][:3] == [
        ("swap-1", 1e-3, 0),
        ("swap-1", 3e-3, 0),
        ("swap-2", 1e-3, 0),
    ]
    assert len(tuning) == len(study.arms) * 2
    seeds = study.planner.seeds(study.design, study.arms.values(), dict.fromkeys(study.arms, 3e-3))
    assert [run.seed for run in seeds] == [seed for seed in range(5) for _ in study.arms]
    # The run that won the tuning is the study's run of that seed.
    assert {run.folder for run in seeds[: len(study.arms)]} == {run.folder for run in tuning if run.rate == 3e-3}
    assert len({run.id for run in (*tuning, *seeds)}) == len(study.arms) * (2 + 4)
    assert seeds[-1].config.seed == 4
    assert seeds[-1].config.optim.lr == 3e-3


def test_ids_stay_when_nothing_is_computed_otherwise(write_study: Any, tmp_path: Path, corpus: Path) -> None:
    before = ids(open_study(write_study(), None))
    moved = open_study(write_study({"title": "Another", "prepare": None}), tmp_path / "elsewhere")
    assert ids(moved) == before
    assert moved.tuning()[0].folder.parent == tmp_path / "elsewhere" / "runs"
    # The same text in another place, and trackers, change nothing.
    prepare(str(corpus.parent / "t.txt"), tmp_path / "again", val_fraction=0.2, num_workers=1)
    base = tmp_path / "base.yaml"
    base.write_text(
        base.read_text().replace(str(corpus), str(tmp_path / "again")).replace("mlflow: false", "mlflow: true")
    )
    again = open_study(tmp_path / "small.yaml", None)
    assert ids(again) == before


@pytest.mark.parametrize("train", [{"max_steps": 7}, {"global_batch": 4}, {"eval_samples": 3}])
def test_another_setting_makes_other_runs(write_study: Any, train: dict[str, Any]) -> None:
    before = ids(open_study(write_study(), None))
    assert not set(before) & set(ids(open_study(write_study(train=train), None)))


def test_another_text_makes_other_runs(write_study: Any, tmp_path: Path, corpus: Path) -> None:
    before = ids(open_study(write_study(), None))
    (tmp_path / "u.txt").write_text((corpus.parent / "t.txt").read_text().replace("says", "said"))
    prepare(str(tmp_path / "u.txt"), tmp_path / "other", val_fraction=0.2, num_workers=1)
    base = tmp_path / "base.yaml"
    base.write_text(base.read_text().replace(str(corpus), str(tmp_path / "other")))
    assert not set(before) & set(ids(open_study(tmp_path / "small.yaml", None)))


def test_a_dry_run_shows_arms_power_and_runs_and_writes_nothing(
    write_study: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from evaluation.study.command import main

    assert main([str(write_study()), "--output", str(tmp_path / "out"), "--dry-run"]) == 0
    shown = capsys.readouterr().out
    assert "arm      single: parameters" in shown
    assert "parameters equal to 0.00%" in shown
    assert "runs     8 to tune, then 16 more at the tuned rates" in shown
    assert "a difference of that size is shown by 7" in shown
    assert not (tmp_path / "out").exists()


def test_a_value_that_only_yaml_reads_survives_the_command_line(write_study: Any) -> None:
    study = open_study(write_study({"arms": {"odd": {"optim.betas": [0.8, 0.9], "model.rope_theta": 1e5}}}), None)
    config = study.planner.run(study.arms["odd"], 1e-5, 3).config
    assert (config.optim.betas, config.model.rope_theta, config.optim.lr) == ((0.8, 0.9), 1e5, 1e-5)
