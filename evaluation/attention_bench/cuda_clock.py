"""Timing on CUDA. It has never run on a GPU."""

from collections.abc import Callable

import torch

from evaluation.attention_bench.caches import Flusher
from evaluation.attention_bench.reasons import first_line

Call = Callable[[], object]

_WARM_UP = 3


class CudaSampler:
    """Times on the device's own clock; the host's launching is in it only where there is no graph.

    Args:
        how: see `Sampler.how`.
        many: runs a contender `iters` times.
        one: runs it once.
        iters: how often `many` does.
        flusher: what empties the L2.
    """

    def __init__(self, how: str, many: Call, one: Call, iters: int, flusher: Flusher) -> None:
        self.how = how
        self._many, self._one, self._iters, self._flusher = many, one, iters, flusher

    def sample(self, cold: bool) -> list[float]:
        """See `Sampler.sample`; warm: the mean of `iters` calls in a row, cold: `iters` calls."""
        if not cold:
            return [_seconds(self._many) / self._iters]
        seconds = []
        for _ in range(self._iters):
            self._flusher.flush()
            seconds.append(_seconds(self._one))
        return seconds


def make_cuda_sampler(call: Call, iters: int, flusher: Flusher) -> CudaSampler:
    """Replays of CUDA graphs, as engines launch them; events around calls where none is to be had."""

    def many() -> None:
        for _ in range(iters):
            call()

    try:
        return CudaSampler("CUDA graph", _capture(many, call), _capture(call, call), iters, flusher)
    except Exception as error:  # kernels refuse to be captured with whatever they like
        torch.cuda.synchronize()
        return CudaSampler(
            f"CUDA events, for no graph can be had: {first_line(error)}", many, call, iters, flusher
        )


def _capture(work: Call, once: Call) -> Call:
    graph = torch.cuda.CUDAGraph()
    stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(_WARM_UP):
            once()
        stream.synchronize()
        with torch.cuda.graph(graph, stream=stream):
            work()
    torch.cuda.current_stream().wait_stream(stream)
    torch.cuda.synchronize()
    return graph.replay


def _seconds(work: Call) -> float:
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
    start.record()
    work()
    end.record()
    torch.cuda.synchronize()
    return start.elapsed_time(end) / 1e3
