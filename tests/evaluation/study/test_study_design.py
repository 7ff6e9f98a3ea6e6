"""A study file: what is refused, in which words."""

from pathlib import Path
from typing import Any

import pytest

from evaluation.study.command import main
from evaluation.study.design import load_design
from evaluation.study.study import open_study
from parallax.data.prepare import prepare
from parallax.errors import ParallaxError

MISTAKES: list[tuple[dict[str, Any], str]] = [
    ({"sedes": [1]}, "unknown key 'sedes'; did you mean 'seeds'?"),
    ({"tuning": {"rate": [1e-3], "seeds": [0]}}, "unknown key 'tuning.rate'; did you mean 'rates'?"),
    (
        {"baselines": {"single": {"mach": "flops", "match": "flops"}}},
        "unknown key 'baselines.single.mach'; did you mean 'match'?",
    ),
    ({"seeds": [0, 1, 2, 3]}, "seeds=[0, 1, 2, 3]: 4 are too few for a verdict; give 5 or more"),
    ({"seeds": [0, 1, 2, 3, 4, 4]}, "seeds: 4 is there twice"),
    ({"tuning": {"rates": [1e-3, 1e-3], "seeds": [0]}}, "tuning.rates: 0.001 is there twice"),
    ({"reference": "swap2"}, "reference: no arm 'swap2'; did you mean 'swap-2'?"),
    ({"comparisons": [["swap-2", "sing"]]}, "comparisons: no arm 'sing'; did you mean 'single'?"),
    ({"comparisons": [["swap-2", "swap-2"]]}, "comparisons: swap-2 is compared with itself"),
    ({"arms": {"a b": {}}}, "'a b' is not a name for folders"),
    ({"arms": {"fast": {"optim.lr": 1.0}}}, "arms: optim.lr is set by the study itself; take it out"),
    ({"arms": {"odd": {"model.use_swop": True}}}, "arm odd: "),
    ({"arms": {"odd": {"model.use_swop": True}}}, "unknown key 'model.use_swop'; did you mean 'model.use_swap'?"),
    ({"base": "bas.yaml"}, "no such configuration file; did you mean"),
]


@pytest.mark.parametrize(("changes", "words"), MISTAKES)
def test_a_mistake_is_told_in_one_line(write_study: Any, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ParallaxError) as caught:
        open_study(write_study(changes), None)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_corpus_comes_with_the_command_that_makes_it(
    write_study: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write_study()
    base = tmp_path / "base.yaml"
    base.write_text(base.read_text().replace("/corpus", "/corpse"))
    assert main([str(file), "--dry-run"]) == 2
    told = capsys.readouterr().err
    assert "corpse: no such corpus; did you mean" in told
    assert "the study says: parallax data prepare --input t.txt --output corpus" in told


def test_a_corpus_that_does_not_fit_or_has_nothing_held_out_is_refused(write_study: Any, tmp_path: Path) -> None:
    with pytest.raises(ParallaxError, match=r"set model.vocab_size=257"):
        open_study(write_study({"arms": {"narrow": {"model.vocab_size": 100}}}), None)
    (tmp_path / "t.txt").write_text("some text\n" * 100)
    prepare(str(tmp_path / "t.txt"), tmp_path / "whole", val_fraction=0.0)
    with pytest.raises(ParallaxError, match=r"has no val split"):
        open_study(write_study({"arms": {"blind": {"data.path": str(tmp_path / "whole")}}}), None)


def test_a_misspelt_file_and_option_are_told(
    write_study: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_study()
    assert main([str(tmp_path / "smal.yaml")]) == 2
    assert f"no such study file; did you mean {tmp_path}/small.yaml?" in capsys.readouterr().err
    assert main([str(tmp_path / "small.yaml"), "--jobs", "0"]) == 2
    assert "--jobs 0: expected 1 or more" in capsys.readouterr().err
    assert main([str(tmp_path / "small.yaml"), "--", "--time", "1"]) == 2
    assert "which is for --via slurm" in capsys.readouterr().err


def test_every_combination_of_levels_is_an_arm_and_equal_ones_are_one(write_study: Any) -> None:
    file = write_study({"arms": {"deep": {"model.num_layers": 2}}})
    assert list(load_design(file).cells) == ["swap-1", "swap-2", "self-1", "self-2", "deep"]
    arms = open_study(file, None).arms
    # What is read between passes means nothing where there is one pass.
    assert list(arms) == ["swap-1", "swap-2", "self-2", "deep", "single"]
    assert arms["swap-1"].also == ("self-1",)


def test_the_published_study_is_sound(monkeypatch: pytest.MonkeyPatch) -> None:
    design = load_design("configs/studies/swap.yaml")
    assert len(design.seeds) >= 5
    assert len(design.cells) == 9
    assert {baseline.match for baseline in design.baselines.values()} == {"parameters", "flops", "kv_bytes"}
