"""Intervals, corrections and verdicts beside independent statements of the same."""

import numpy as np
import pytest
from scipy import stats

from evaluation.compare.power import paired_power
from evaluation.compare.simulate import count_verdicts, main, most_false
from evaluation.compare.statistics import compare_pairs


def losses(*values: float) -> dict[int, float]:
    return dict(enumerate(values))


def test_one_pair_is_the_paired_t_test() -> None:
    random = np.random.default_rng(3)
    first, second = random.normal(size=(2, 7))
    [found] = compare_pairs([(losses(*first), losses(*second))])
    expected = stats.ttest_rel(first, second)
    interval = expected.confidence_interval(0.95)
    assert found.half_width is not None
    assert found.p == pytest.approx(expected.pvalue, rel=1e-9)
    assert found.adjusted_p == found.p
    assert (found.mean - found.half_width, found.mean + found.half_width) == pytest.approx(
        (interval.low, interval.high), rel=1e-9
    )


def test_many_pairs_have_wider_intervals_and_holms_p() -> None:
    random = np.random.default_rng(5)
    pairs = [(losses(*random.normal(size=5)), losses(*random.normal(shift, size=5))) for shift in (0, 1, 2, 4)]
    found = compare_pairs(pairs)
    alone = [compare_pairs([pair])[0] for pair in pairs]
    assert {one.level for one in found} == {1 - 0.05 / 4}
    for one, wide in zip(alone, found, strict=True):
        assert one.half_width is not None
        assert wide.half_width is not None
        ratio = stats.t.ppf(1 - 0.05 / 8, 4) / stats.t.ppf(0.975, 4)
        assert wide.half_width / one.half_width == pytest.approx(ratio)
    ps = [one.p or 0.0 for one in found]
    # Holm as it is told: the k-th smallest times those not yet rejected, never below an earlier one.
    steps = np.maximum.accumulate([min(1.0, p * (4 - k)) for k, p in enumerate(sorted(ps))])
    expected = [float(steps[sorted(ps).index(p)]) for p in ps]
    assert [one.adjusted_p for one in found] == pytest.approx(expected)


def test_only_common_seeds_count() -> None:
    [found] = compare_pairs([({0: 1.0, 1: 2.0, 2: 9.0}, {1: 1.5, 2: 8.0, 7: 0.0})])
    assert found.seeds == (1, 2)
    assert found.mean == pytest.approx(0.75)


def test_one_seed_allows_no_statement_and_equal_runs_show_no_difference() -> None:
    [one] = compare_pairs([(losses(1.0), losses(2.0))])
    assert (one.outcome, one.half_width, one.p) == ("no statement", None, None)
    [equal] = compare_pairs([(losses(1.0, 2.0), losses(1.0, 2.0))])
    assert (equal.outcome, equal.p) == ("no difference shown", 1.0)
    with pytest.raises(ValueError, match="no seed in common"):
        compare_pairs([({0: 1.0}, {1: 1.0})])


@pytest.mark.parametrize("spreads", [(1.0, 1.0), (1.0, 5.0)])
@pytest.mark.parametrize("num_seeds", [3, 5, 10])
def test_false_verdicts_are_as_rare_as_promised(num_seeds: int, spreads: tuple[float, float]) -> None:
    assert most_false(1000) == 66
    found = count_verdicts(1000, num_seeds, spreads=spreads, seed=11)
    assert 25 < found <= most_false(1000)


def test_power_is_the_exact_one() -> None:
    for num_seeds, effect in ((5, 1.5), (6, 1.5), (5, 1.7)):
        found = count_verdicts(2000, num_seeds, effect=effect, seed=2) / 2000
        assert found == pytest.approx(paired_power(effect, 1.0, num_seeds, 0.05), abs=0.03)
    # What was asked of five seeds at 1.5 deviations, 80 %, no two-sided test at 5 % gives; six do.
    assert paired_power(1.5, 1.0, 5, 0.05) < 0.8 < paired_power(1.5, 1.0, 6, 0.05)


def test_the_simulation_prints_both_tables(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--pairs", "100"]) == 0
    assert "false verdicts in 100 pairs" in capsys.readouterr().out
