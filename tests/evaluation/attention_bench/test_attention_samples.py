"""Rounds are interleaved, quantiles are those of all samples, and ratios are taken round by round."""

import pytest

from evaluation.attention_bench.clock import WallClock
from evaluation.attention_bench.samples import Samples, ratio_to, time_interleaved


class Recorded:
    """Answers with a given list, and notes that it was asked."""

    how = "recorded"

    def __init__(self, name: str, asked: list[tuple[str, bool]]) -> None:
        self._name, self._asked = name, asked

    def sample(self, cold: bool) -> list[float]:
        self._asked.append((self._name, cold))
        return [float(len(self._asked))]


class CountedFlushes:
    """In place of a buffer of 128 MiB."""

    def __init__(self) -> None:
        self.events: list[str] = []

    def flush(self) -> None:
        self.events.append("flush")


def test_contenders_take_turns() -> None:
    asked: list[tuple[str, bool]] = []
    samples = time_interleaved({name: Recorded(name, asked) for name in "ab"}, trials=3, cold=True)
    assert asked == [("a", True), ("b", True)] * 3
    assert samples["b"].rounds == [[2.0], [4.0], [6.0]]


def test_quantiles_are_of_all_samples() -> None:
    samples = Samples([[5.0, 1.0, 3.0], [2.0, 4.0]])
    assert (samples.count, samples.quantile(0.5)) == (5, 3.0)
    assert samples.quantile(0.05) == pytest.approx(1.2)
    assert samples.quantile(0.95) == pytest.approx(4.8)


def test_a_slow_round_of_both_does_not_change_the_ratio() -> None:
    samples = {
        "ours": Samples([[2.0, 2.0], [200.0, 200.0], [6.0, 2.0, 2.0]]),
        "sdpa": Samples([[1.0], [100.0], [1.0]]),
    }
    assert ratio_to(samples, "ours", "sdpa") == 2.0
    assert ratio_to(samples, "sdpa", "sdpa") == 1.0


@pytest.mark.parametrize(("cold", "events"), [(False, ["call"] * 2), (True, ["flush", "call"] * 2)])
def test_cold_calls_come_after_a_flush(cold: bool, events: list[str]) -> None:
    flusher = CountedFlushes()
    clock = WallClock(lambda: flusher.events.append("call"), iters=2, flusher=flusher)
    assert len(clock.sample(cold)) == 2
    assert flusher.events == events
