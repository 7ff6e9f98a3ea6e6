import time
from collections.abc import Callable
from typing import Protocol

import torch

from evaluation.attention_bench.caches import Flusher

Call = Callable[[], object]


class Sampler(Protocol):
    """Times one contender."""

    how: str
    """How, for the person who reads the table."""

    def sample(self, cold: bool) -> list[float]:
        """Seconds of a call, once or several times over; cold: the caches are flushed before each."""
        ...


class WallClock:
    """Times calls on the CPU, each for itself."""

    def __init__(self, call: Call, iters: int, flusher: Flusher) -> None:
        self.how = "wall clock"
        self._call, self._iters, self._flusher = call, iters, flusher

    def sample(self, cold: bool) -> list[float]:
        """See `Sampler.sample`; `iters` calls."""
        seconds = []
        for _ in range(self._iters):
            if cold:
                self._flusher.flush()
            start = time.perf_counter()
            self._call()
            seconds.append(time.perf_counter() - start)
        return seconds


def make_sampler(call: Call, iters: int, flusher: Flusher, device: torch.device) -> Sampler:
    """What times a contender on `device`; it has been called before, so that nothing is left to be compiled."""
    if device.type == "cuda":
        from evaluation.attention_bench.cuda_clock import make_cuda_sampler

        return make_cuda_sampler(call, iters, flusher)
    return WallClock(call, iters, flusher)
