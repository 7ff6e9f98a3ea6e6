import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass(frozen=True)
class Throughput:
    """Speed over one interval between two log lines, and training time so far."""

    tokens_per_second: float
    step_seconds: float
    """Mean time of one step."""
    seconds: float
    """Training time since the run began, over restarts, without pauses."""


class ThroughputMeter:
    """Times training steps; what happens inside `paused()` (validation, saving, samples) is not counted.

    On a GPU, read it only where the host has just waited for the device, as it does to fetch the loss.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._resumed_at: float | None = clock()
        self._seconds_before = 0.0
        self._interval_start = 0.0
        self._tokens = 0
        self._steps = 0

    def step(self, tokens: int) -> None:
        """Counts one optimizer step over `tokens` tokens."""
        self._tokens += tokens
        self._steps += 1

    @property
    def seconds(self) -> float:
        """Training time since the run began, over restarts, without pauses."""
        running = 0.0 if self._resumed_at is None else self._clock() - self._resumed_at
        return self._seconds_before + running

    def read(self) -> Throughput:
        """The speed since the last reading; starts the next interval. Without steps or time it is zero."""
        seconds = self.seconds
        elapsed = seconds - self._interval_start
        measured = Throughput(
            tokens_per_second=self._tokens / elapsed if elapsed > 0 else 0.0,
            step_seconds=elapsed / self._steps if self._steps else 0.0,
            seconds=seconds,
        )
        self._interval_start, self._tokens, self._steps = seconds, 0, 0
        return measured

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Stops the clock for the block; a pause inside a pause is part of the outer one."""
        if self._resumed_at is None:
            yield
            return
        self._seconds_before, self._resumed_at = self.seconds, None
        try:
            yield
        finally:
            self._resumed_at = self._clock()

    def state_dict(self) -> dict[str, float]:
        """What a checkpoint keeps: the training time so far."""
        return {"seconds": self.seconds}

    def load_state_dict(self, state: dict[str, float]) -> None:
        """Goes on counting from a checkpoint's training time; the time since construction is forgotten."""
        self._seconds_before = self._interval_start = state["seconds"]
        self._tokens = self._steps = 0
        if self._resumed_at is not None:
            self._resumed_at = self._clock()
