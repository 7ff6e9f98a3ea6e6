"""`key=value` on the command line."""

from collections.abc import Callable
from pathlib import Path

import pytest

from parallax.config.load import load_config
from parallax.errors import ConfigError


def test_an_override_wins_over_the_file_and_the_last_over_the_first(smallest: Path) -> None:
    config = load_config(smallest, ["train.max_steps=20", "model.dropout=0.1", "train.max_steps=30"])
    assert config.train.max_steps == 30
    assert config.model.dropout == 0.1
    assert config.train.global_batch == 16


@pytest.mark.parametrize(
    ("override", "section", "key", "value"),
    [
        ("optim.lr=3e-4", "optim", "lr", 3e-4),
        ("optim.lr=1", "optim", "lr", 1.0),
        ("model.use_swap=false", "model", "use_swap", False),
        ("model.reinject=true", "model", "reinject", True),
        ("model.reinject=auto", "model", "reinject", "auto"),
        ("train.compile=off", "train", "compile", "off"),
        ("train.profile=3:10", "train", "profile", "3:10"),
        ("optim.betas=[0.8, 0.9]", "optim", "betas", (0.8, 0.9)),
        ("sample.prompt=a = b", "sample", "prompt", "a = b"),
        ("data.val_path=null", "data", "val_path", None),
        ("run.name=2024-01-01", "run", "name", "2024-01-01"),
        ("runtime.device=cuda:1", "runtime", "device", "cuda:1"),
        ("tracking.uri=http://host:5000", "tracking", "uri", "http://host:5000"),
    ],
)
def test_values_are_read_as_yaml(smallest: Path, override: str, section: str, key: str, value: object) -> None:
    found = getattr(getattr(load_config(smallest, [override]), section), key)
    assert found == value
    assert type(found) is type(value)


def test_an_override_reaches_sections_that_the_file_leaves_out_or_empty(
    write_config: Callable[[str], Path], smallest_text: str
) -> None:
    config = load_config(write_config("loss:\n" + smallest_text), ["loss.z_loss=1e-4", "train.goal.max_loss=0.05"])
    assert config.loss.z_loss == 1e-4
    assert config.train.goal is not None
    assert config.train.goal.max_loss == 0.05


def test_an_override_opens_a_section_that_the_file_sets_to_null(
    write_config: Callable[[str], Path], smallest_text: str
) -> None:
    path = write_config(smallest_text.replace("train:\n", "train:\n  goal: null\n"))
    goal = load_config(path, ["train.goal.max_loss=0.05"]).train.goal
    assert goal is not None
    assert goal.max_loss == 0.05


@pytest.mark.parametrize("override", ["train.max_steps", "=3", "train.=3", ".train=3", "train..max_steps=3"])
def test_what_is_not_key_value_is_refused_with_an_example(smallest: Path, override: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(smallest, [override])
    assert str(caught.value) == f"override {override!r}: expected key=value, for example train.max_steps=100"


def test_a_key_inside_a_value_is_refused(smallest: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"^override 'train.max_steps.x=1': 'max_steps' is a value, not a section$"
    ):
        load_config(smallest, ["train.max_steps.x=1"])


def test_a_value_that_is_not_yaml_names_the_override(smallest: Path) -> None:
    with pytest.raises(ConfigError, match=r"^override 'optim.betas=\[0.9': not valid YAML in line 1"):
        load_config(smallest, ["optim.betas=[0.9"])
