"""Baselines of equal cost, held against counters and against built models."""

from typing import Any

import pytest

from evaluation.costs import CACHE_NUMBER_BYTES, costs_of
from evaluation.study.baselines import TOLERANCE, deviation, solve_baseline
from evaluation.study.design import Baseline
from parallax.config.load import check_model_config
from parallax.config.models.base import ModelConfig
from parallax.errors import ConfigError
from parallax.metrics.flops import forward_flops_per_token
from parallax.model.registry import build_model, materialize

REFERENCE = {
    "num_tracks": 2,
    "num_layers": 3,
    "num_heads": 4,
    "num_kv_heads": 2,
    "hidden_size": 64,
    "intermediate_size": 176,
    "vocab_size": 300,
    "max_seq_len": 32,
    "num_loops": 2,
}


def build(changed: dict[str, Any]) -> ModelConfig:
    settings = REFERENCE | {key.removeprefix("model."): value for key, value in changed.items()}
    return check_model_config(settings, source="test")


CASES = [
    ("parameters", "num_layers", {"model.num_loops": 1}),
    ("parameters", "intermediate_size", {"model.num_loops": 1}),
    ("parameters", "hidden_size", {"model.num_loops": 1, "model.num_layers": 6}),
    ("flops", "num_layers", {}),
    ("flops", "num_loops", {"model.num_layers": 3}),
    ("flops", "intermediate_size", {"model.num_loops": 1}),
    ("kv_bytes", "num_layers", {"model.num_loops": 1}),
    ("kv_bytes", "num_loops", {}),
    ("kv_bytes", "hidden_size", {"model.num_layers": 4}),
]


@pytest.mark.parametrize(("match", "solve", "overrides"), CASES)
def test_a_baseline_costs_what_the_reference_costs(match: Any, solve: Any, overrides: dict[str, Any]) -> None:
    baseline = Baseline(match=match, solve=solve, overrides=overrides)
    found = build(solve_baseline("b", baseline, build({}), build))
    assert found.num_tracks == 1
    assert abs(_counted(found)[match] / _counted(build({}))[match] - 1) <= TOLERANCE
    assert abs(deviation(found, build({}), match)) <= TOLERANCE


def _counted(config: ModelConfig) -> dict[str, float]:
    """Of a model that is really built, but for the FLOPs, whose formula has a test of its own."""
    model = materialize(build_model(config), "cpu")
    cache = model.build_cache(batch_size=1, capacity=10)
    return {
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "flops": 3 * forward_flops_per_token(config, config.max_seq_len),
        "kv_bytes": cache.num_bytes / 10 * CACHE_NUMBER_BYTES / cache.keys.element_size(),
    }


@pytest.mark.parametrize("changes", [{}, {"model.num_loops": 3}, {"model.num_tracks": 3, "model.num_kv_heads": 4}])
def test_costs_are_those_of_the_built_model(changes: dict[str, Any]) -> None:
    config = build(changes)
    costs = costs_of(config)
    assert _counted(config) == {"parameters": costs.parameters, "flops": costs.flops, "kv_bytes": costs.kv_bytes}


def test_what_cannot_be_made_equal_is_refused() -> None:
    # One layer of the track is half of the whole: no whole number of loops comes near.
    far = Baseline(match="flops", solve="num_loops", overrides={"model.num_layers": 5})
    with pytest.raises(
        ConfigError, match=r"baselines.b: the nearest, num_loops=2, is 1\d\.\d% off in flops; .* 2%"
    ):
        solve_baseline("b", far, build({}), build)
    same = Baseline(match="kv_bytes", solve="intermediate_size")
    with pytest.raises(ConfigError, match=r"intermediate_size does not change kv_bytes; solve for num_layers"):
        solve_baseline("b", same, build({}), build)
    both = Baseline(match="flops", solve="num_layers", overrides={"model.num_layers": 2})
    with pytest.raises(ConfigError, match=r"model.num_layers is both given and solved for"):
        solve_baseline("b", both, build({}), build)
