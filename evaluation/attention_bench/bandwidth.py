import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from evaluation.attention_bench.caches import last_level_bytes

_ROUNDS = 8
_CPU_BYTES = 1 << 28
_CUDA_BYTES = 1 << 30


@dataclass(frozen=True)
class Bandwidth:
    """Of memory, past every cache."""

    bytes_per_second: float
    source: str
    """Where the figure comes from, for the person who reads the table."""


def measure_bandwidth(device: torch.device) -> Bandwidth:
    """The best rate of a few passes over more than the caches hold, within a second.

    On the CPU of reading, by as many threads as PyTorch has; on CUDA of copying, both ways counted. A busy machine
    shows less than it has, and then a row may come out below its floor.
    """
    if device.type == "cuda":
        return Bandwidth(_copying(device), "measured now: copying 1 GiB on the device")
    size = max(_CPU_BYTES, 4 * last_level_bytes(device))
    numbers = torch.ones(size // 4)
    halves = numbers.chunk(2)
    # Adding up and the inner product read in ways that differ in what limits them; the better one counts.
    seconds = min(_best(numbers.sum), _best(lambda: torch.dot(*halves)))
    threads = torch.get_num_threads()
    plural = "" if threads == 1 else "s"
    return Bandwidth(size / seconds, f"measured now: reading {size / 2**20:.0f} MiB, {threads} thread{plural}")


def _best(call: Callable[[], object]) -> float:
    fastest = float("inf")
    for _ in range(_ROUNDS):
        start = time.perf_counter()
        call()
        fastest = min(fastest, time.perf_counter() - start)
    return fastest


def _copying(device: torch.device) -> float:
    source = torch.ones(_CUDA_BYTES, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    target.copy_(source)
    fastest = float("inf")
    for _ in range(_ROUNDS):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        start.record()
        target.copy_(source)
        end.record()
        torch.cuda.synchronize(device)
        fastest = min(fastest, start.elapsed_time(end) / 1e3)
    return 2 * _CUDA_BYTES / fastest
