from collections.abc import Callable, Iterator
from itertools import count
from typing import Any

from evaluation.costs import costs_of
from evaluation.study.design import Baseline
from parallax.config.models.base import ModelConfig
from parallax.errors import ConfigError

TOLERANCE = 0.02
"""What may be left between two costs that are called equal."""

_MOST_TRIED = 4096
_FINER = {
    "num_layers": "intermediate_size",
    "num_loops": "num_layers",
    "hidden_size": "intermediate_size",
    "intermediate_size": "num_layers",
}

Build = Callable[[dict[str, Any]], ModelConfig]
"""The model with some of its keys changed: dotted key -> value."""


def solve_baseline(name: str, baseline: Baseline, reference: ModelConfig, build: Build) -> dict[str, Any]:
    """The overrides that give the baseline the reference's cost, as nearly as whole numbers can.

    Args:
        name: of the baseline, for messages.
        baseline: what is equal and what gives way.
        reference: the arm that it is made from.
        build: makes the reference's model with overrides.

    Returns:
        Dotted key -> value.

    Raises:
        ConfigError: no value comes within 2 %, or the key does not change that cost.
    """
    fixed = {"model.num_tracks": 1} | baseline.overrides
    if f"model.{baseline.solve}" in baseline.overrides:
        raise ConfigError(f"baselines.{name}: model.{baseline.solve} is both given and solved for; take one out")
    target = getattr(costs_of(reference), baseline.match)
    best: tuple[float, dict[str, Any]] | None = None
    costs: list[int] = []
    for changed in _candidates(baseline.solve, reference):
        overrides = fixed | changed
        costs.append(getattr(costs_of(build(overrides)), baseline.match))
        off = abs(costs[-1] / target - 1)
        if best is None or off < best[0]:
            best = (off, overrides)
        # Costs grow with what is solved for: from here on they only get worse.
        if costs[-1] >= target or len(costs) == _MOST_TRIED:
            break
        if len(costs) == 2 and costs[0] == costs[1]:
            raise ConfigError(
                f"baselines.{name}: {baseline.solve} does not change {baseline.match}; "
                f"solve for {_FINER[baseline.solve]}"
            )
    assert best is not None
    if best[0] > TOLERANCE:
        nearest = best[1][f"model.{baseline.solve}"]
        raise ConfigError(
            f"baselines.{name}: the nearest, {baseline.solve}={nearest}, is {best[0]:.1%} off in "
            f"{baseline.match}; at most {TOLERANCE:.0%} is called equal; solve for {_FINER[baseline.solve]}, "
            f"or change its overrides"
        )
    return best[1]


def deviation(config: ModelConfig, reference: ModelConfig, match: str) -> float:
    """How far a model's cost is from the reference's, as a share of it; negative: it costs less."""
    return float(getattr(costs_of(config), match) / getattr(costs_of(reference), match) - 1)


def _candidates(key: str, reference: ModelConfig) -> Iterator[dict[str, Any]]:
    """Ever dearer models."""
    if key == "hidden_size":
        # Heads stay in number and even in width; the SwiGLU keeps its proportion.
        ratio = reference.intermediate_size / reference.hidden_size
        for width in count(2 * reference.num_heads, 2 * reference.num_heads):
            yield {"model.hidden_size": width, "model.intermediate_size": max(1, round(ratio * width))}
    for value in count(1):
        yield {f"model.{key}": value}
