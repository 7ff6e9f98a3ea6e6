"""The best rate of every arm, and what is said before and after."""

from typing import Any

import pytest

from evaluation.compare.power import detectable_effect, paired_power
from evaluation.study.status import Stand, Status
from evaluation.study.study import open_study
from evaluation.study.tuning import tune
from parallax.errors import RunError


def found(write_study: Any, losses: dict[float, float | None], seeds: int = 1) -> dict[Any, Status]:
    rates = {"rates": list(losses), "seeds": list(range(seeds))}
    study = open_study(write_study({"tuning": rates}), None)
    return {
        run: Status(Stand.DIVERGED) if losses[run.rate] is None else Status(Stand.DONE, 6, losses[run.rate])
        for run in study.tuning()
        if run.arm == "swap-2"
    }


def test_the_lowest_loss_wins(write_study: Any) -> None:
    one = tune(found(write_study, {1e-3: 3.2, 2e-3: 3.0, 4e-3: 3.1}))["swap-2"]
    assert (one.rate, one.warning) == (2e-3, None)


@pytest.mark.parametrize(
    ("losses", "rate", "word"),
    [({1e-3: 3.0, 2e-3: 3.1}, 1e-3, "lowest"), ({1e-3: 3.1, 2e-3: 3.0}, 2e-3, "highest")],
)
def test_a_best_rate_at_the_edge_is_warned_of(
    write_study: Any, losses: dict[float, float | None], rate: float, word: str
) -> None:
    one = tune(found(write_study, losses))["swap-2"]
    assert one.rate == rate
    assert one.warning == f"swap-2: the best rate, {rate:g}, is the {word} tried; a better one may lie beyond"


def test_a_rate_is_judged_by_the_mean_over_its_seeds(write_study: Any) -> None:
    runs = found(write_study, {1e-3: 3.0, 2e-3: 3.0}, seeds=2)
    # 3.0 and 3.5 against 3.1 and 3.1.
    losses = {(1e-3, 0): 3.0, (1e-3, 1): 3.5, (2e-3, 0): 3.1, (2e-3, 1): 3.1}
    one = tune({run: Status(Stand.DONE, 6, losses[run.rate, run.seed]) for run in runs})["swap-2"]
    assert one.rate == 2e-3
    assert one.losses == {1e-3: 3.25, 2e-3: 3.1}


def test_a_rate_that_diverged_loses_and_an_arm_that_always_did_is_an_error(write_study: Any) -> None:
    assert tune(found(write_study, {1e-3: 9.0, 2e-3: None}))["swap-2"].rate == 1e-3
    with pytest.raises(RunError, match="arm swap-2: every rate tried diverged; add lower ones"):
        tune(found(write_study, {1e-3: None, 2e-3: None}))


def test_power_is_that_of_the_tables() -> None:
    # G*Power 3.1, difference between two dependent means, two tails: d = 1.5, n = 5; d = 0.5, n = 34.
    assert paired_power(1.5, 1.0, 5, 0.05) == pytest.approx(0.7107, abs=1e-3)
    assert paired_power(0.5, 1.0, 34, 0.05) == pytest.approx(0.8078, abs=1e-3)
    # Without an effect it is the level itself.
    assert paired_power(0.0, 1.0, 5, 0.05) == pytest.approx(0.05, abs=1e-9)
    # scipy has NaN for the far tail here.
    assert paired_power(0.04, 0.02, 12, 0.05 / 6) == pytest.approx(0.9990, abs=1e-4)
    seen = detectable_effect(0.01, 5, 0.05)
    assert paired_power(seen, 0.01, 5, 0.05) == pytest.approx(0.8, abs=1e-6)
