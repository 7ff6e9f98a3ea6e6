"""`python -m parallax.train` is `parallax train`."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny_runs import measured, tiny_config

from parallax.cli.main import main as parallax_command
from parallax.config.load import dump_config
from parallax.train.command import main as module_command

Settings = Callable[..., dict[str, Any]]


@pytest.fixture
def config_file(settings: Settings, tmp_path: Path) -> str:
    path = tmp_path / "tiny.yaml"
    path.write_text(dump_config(tiny_config(settings({"train.max_steps": 3}))))
    return str(path)


def exit_code(arguments: list[str]) -> object:
    with pytest.raises(SystemExit) as left:
        parallax_command(["train", *arguments])
    return left.value.code


def test_both_train_the_same_run(config_file: str, tmp_path: Path) -> None:
    for run, command in (("one", module_command), ("other", exit_code)):
        assert command([config_file, f"run.dir={tmp_path / run}", "optim.lr=2e-3", "train.eval_every=0"]) == 0
    assert measured(tmp_path / "one") == measured(tmp_path / "other")
    assert len(measured(tmp_path / "one")) == 3


@pytest.mark.parametrize("mistake", ["optim.learning_rate=1", "train.max_steps=none", "nonsense"])
def test_both_refuse_a_mistake_with_the_same_line(
    mistake: str, config_file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = []
    for command in (module_command, exit_code):
        assert command([config_file, mistake]) == 2
        lines.append(capsys.readouterr().err)
    assert lines[0] == lines[1]
    assert lines[0].startswith("error: ")
    assert lines[0].count("\n") == 1


@pytest.mark.parametrize("arguments", [[], ["x.yaml", "--fast"]])
def test_a_command_line_that_makes_no_sense_is_one_line_too(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert module_command(arguments) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert line.endswith("see: python -m parallax.train --help")
