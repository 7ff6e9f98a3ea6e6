"""A resolved configuration states every default, survives its YAML file and starts the same run again."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from parallax.config.load import check_config, dump_config, known_keys, load_config
from parallax.config.run import RunConfig
from parallax.config.yaml_strict import parse_yaml

PRESETS = sorted((Path(__file__).parents[2] / "configs").glob("*.yaml"))


def reread(config: RunConfig) -> RunConfig:
    return check_config(parse_yaml(dump_config(config), "saved"), "saved")


@pytest.mark.parametrize("path", PRESETS, ids=lambda path: path.stem)
def test_every_preset_survives_its_resolved_file(path: Path) -> None:
    config = load_config(path)
    assert reread(config) == config
    assert dump_config(reread(config)) == dump_config(config)


@given(
    name=st.from_regex(r"[-+.0-9eE:]{1,6}|on|null", fullmatch=True) | st.text(min_size=1, max_size=8),
    prompt=st.text(max_size=20),
    lr=st.floats(1e-300, 1e300),
    betas=st.tuples(st.floats(0, 1, exclude_max=True), st.floats(0, 1, exclude_max=True)),
    swap=st.booleans(),
    reinject=st.sampled_from(["auto", True, False]),
    seed=st.integers(0, 2**70),
)
@example(name="on", prompt="\x85", lr=1.0, betas=(0.0, 0.0), swap=False, reinject="auto", seed=0)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
def test_any_value_survives_the_resolved_file(
    smallest: Path, name, prompt, lr, betas, swap, reinject, seed
) -> None:
    if "/" in name or "\0" in name:
        return
    raw = load_config(smallest).resolved()
    raw["run"] = {"name": name}
    raw["seed"] = seed
    raw["sample"]["prompt"] = prompt
    raw["optim"] = {"lr": lr, "betas": betas}
    raw["model"] |= {"use_swap": swap, "reinject": reinject}
    config = check_config(raw, "here")
    assert reread(config) == config


def test_the_resolved_file_states_every_key(smallest: Path) -> None:
    resolved = load_config(smallest, ["train.goal.max_loss=1", "data.anchor={path: old, ratio: 0.1}"]).resolved()

    def keys(nested: dict, prefix: str = "") -> set[str]:
        found = set()
        for key, value in nested.items():
            found |= {prefix + key} | (keys(value, f"{prefix}{key}.") if isinstance(value, dict) else set())
        return found

    assert keys(resolved) == set(known_keys(RunConfig, architecture="dual_track"))


def test_derived_defaults_follow_what_they_derive_from(smallest: Path) -> None:
    config = load_config(smallest, ["model.hidden_size=96", "optim.lr=0.5", "run.name=mine"])
    assert config.model.num_kv_heads == 4
    assert config.model.intermediate_size == 256
    assert config.optim.min_lr == 0.05
    assert config.train.micro_batch == 16
    assert config.run.dir == "runs/mine"


def test_stated_values_win_over_derived_defaults(smallest: Path) -> None:
    config = load_config(
        smallest,
        ["model.num_kv_heads=1", "model.intermediate_size=1365", "optim.min_lr=0", "run.dir=there"],
    )
    assert (config.model.num_kv_heads, config.model.intermediate_size) == (1, 1365)
    assert config.optim.min_lr == 0
    assert config.run.dir == "there"


def test_the_run_is_named_after_its_file(smallest: Path) -> None:
    config = load_config(smallest.rename(smallest.with_name("1e-3.yaml")))
    assert (config.run.name, config.run.dir) == ("1e-3", "runs/1e-3")
    assert reread(config) == config


def test_an_empty_section_is_an_absent_one(write_config: Callable[[str], Path], smallest_text: str) -> None:
    empty = load_config(write_config(smallest_text + "loss:\n  # z_loss: 1e-4\nsample:\n"))
    assert empty == load_config(write_config(smallest_text))


@pytest.mark.parametrize(
    ("use_swap", "reinject", "expected"),
    [(True, "auto", True), (False, "auto", False), (True, False, False), (False, True, True)],
)
def test_reinjection_follows_the_swap_unless_stated(
    smallest: Path, use_swap: bool, reinject: bool | str, expected: bool
) -> None:
    overrides = [f"model.use_swap={use_swap}", f"model.reinject={reinject}"]
    assert load_config(smallest, overrides).model.reinjects is expected


def test_a_configuration_cannot_be_changed_after_it_was_checked(smallest: Path) -> None:
    config = load_config(smallest)
    with pytest.raises(ValidationError, match="frozen"):
        config.seed = 3
    with pytest.raises(ValidationError, match="frozen"):
        config.model.num_tracks = 3


def test_every_field_is_described_in_the_json_schema() -> None:
    schema = RunConfig.model_json_schema()
    sections = [schema, *schema["$defs"].values()]
    described_by_class = {
        f"#/$defs/{name}" for name, section in schema["$defs"].items() if "description" in section
    }
    for section in sections:
        assert section["additionalProperties"] is False
        for name, field in section["properties"].items():
            inherits = field.get("$ref") in described_by_class
            assert "description" in field or inherits, f"{section['title']}.{name}"
    json.dumps(schema)


def test_loading_a_configuration_loads_no_torch() -> None:
    program = (
        "import sys; from parallax.config.load import load_config; "
        f"load_config({str(PRESETS[0])!r}, ['seed=1']); "
        "print([name for name in ('torch', 'numpy', 'mlflow', 'datasets') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"
