"""A plan is "not measured on a GPU" until a results file of gpu-proof holds a run of its shape."""

import json
from pathlib import Path
from typing import Any

import pytest
from test_fit import _run

from evaluation.gpu_proof.rows import Row, measured_peak
from parallax.config.layout import Layout
from parallax.errors import ConfigError
from parallax.train.planning.gpus import GPUS, find_gpu
from parallax.train.planning.measured import mark_of, read_measured

ALONE = Layout(1, 1, 1)


def _file(folder: Path, peak_bytes: int, machine: dict[str, Any] | None = None, **settings: Any) -> Path:
    row = Row("steps", measured=measured_peak(_run(**settings), peak_bytes))
    checks = {"memory": [Row("another").to_dict(), row.to_dict()]}
    path = folder / "gpu-proof.json"
    machine = machine or {"device": "1 x Some Card", "cuda": "13.0"}
    path.write_text(json.dumps({"machine": machine, "checks": checks}))
    return path


def test_a_run_of_the_same_shape_clears_the_mark(tmp_path: Path) -> None:
    measured = read_measured(_file(tmp_path, 1000 << 20))
    same_step = _run(**{"train.global_batch": 16, "train.max_steps": 99, "train.micro_batch": 8})
    confirmed, mark = mark_of(measured, same_step, ALONE, 960 << 20)
    assert confirmed
    assert mark == "measured: 1 x Some Card held 1,000.0 MiB in tensors, planned 960.0 (-4.0%)"


@pytest.mark.parametrize(
    "changes",
    [
        {"train.micro_batch": 2},
        {"model.num_layers": 3},
        {"train.precision": "bf16"},
        {"train.activation_checkpointing": True},
        {"loss.chunk_tokens": 16},
    ],
)
def test_a_run_of_another_shape_does_not(changes: dict[str, Any], tmp_path: Path) -> None:
    measured = read_measured(_file(tmp_path, 1000 << 20))
    assert mark_of(measured, _run(**changes), ALONE, 1000 << 20) == (False, "not measured on a GPU")
    assert not mark_of(measured, _run(), Layout(2, 1, 1), 1000 << 20)[0]


def test_a_peak_further_off_than_a_tenth_clears_nothing_and_is_told(tmp_path: Path) -> None:
    confirmed, mark = mark_of(read_measured(_file(tmp_path, 1000 << 20)), _run(), ALONE, 800 << 20)
    assert not confirmed
    assert mark.startswith("not confirmed on a GPU: 1 x Some Card held 1,000.0 MiB in tensors, planned 800.0")


def test_what_is_no_results_file_or_comes_from_a_cpu_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"missing\.json: No such file"):
        read_measured(tmp_path / "missing.json")
    (tmp_path / "other.json").write_text("[1, 2]")
    with pytest.raises(ConfigError, match="is no results file"):
        read_measured(tmp_path / "other.json")
    with pytest.raises(ConfigError, match="written on x86_64, not on a GPU"):
        read_measured(_file(tmp_path, 1, machine={"device": "x86_64"}))


def test_an_unknown_card_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean rtx3050"):
        find_gpu("rtx3055")


@pytest.mark.parametrize("name", GPUS)
def test_every_known_card_has_a_rate(name: str) -> None:
    assert GPUS[name].flops > 1e13
    assert GPUS[name].memory_bytes >= 6 * 10**9
