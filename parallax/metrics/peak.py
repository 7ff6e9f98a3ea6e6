import time
from dataclasses import dataclass

import torch

from parallax.metrics.gpu_table import lookup_gpu_peak

_PROBE_SECONDS = 0.25
_PROBE_SIZES = (64, 128, 256, 512, 1024, 2048)


@dataclass(frozen=True)
class Peak:
    """The rate that utilisation is stated against."""

    flops_per_second: float | None
    """Dense matrix-multiply rate; None: not known."""
    source: str
    """Where the figure comes from, for the person who reads the log."""


def measure_peak(device: torch.device, dtype: torch.dtype) -> Peak:
    """The matrix-multiply peak of a device in the type that a run computes in.

    On CUDA it is the maker's dense figure for the card's name, looked up; a card or type that is not in the
    table has no peak. On the CPU it is the best rate of square products timed now, in about a quarter of a
    second; on a machine that is busy with other work it comes out low.

    Args:
        device: a CPU or CUDA device.
        dtype: the type of the matrix products: float32, bfloat16 or float16.
    """
    if device.type == "cpu":
        return _probe_cpu(dtype)
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
        found = lookup_gpu_peak(name, torch.cuda.get_device_properties(device).multi_processor_count, dtype)
        known = "the maker's dense peak" if found else "no published dense peak known"
        return Peak(found, f"{name}, {_type_name(dtype)}: {known}")
    return Peak(None, f"no peak known for {device.type}")


def mfu(flops_per_token: float, tokens_per_second: float, peak: Peak) -> float | None:
    """Model FLOPs utilisation: flops_per_token x tokens_per_second / peak, a fraction; None: peak not known.

    Source: Chowdhery et al., "PaLM", 2022, appendix B.
    """
    if peak.flops_per_second is None:
        return None
    return flops_per_token * tokens_per_second / peak.flops_per_second


def _probe_cpu(dtype: torch.dtype) -> Peak:
    best, best_size = 0.0, 0
    deadline = time.perf_counter() + _PROBE_SECONDS
    for size in _PROBE_SIZES:
        # Constants: drawing numbers here would move the run's random generator.
        square = torch.full((size, size), 0.5, dtype=dtype)
        seconds = min(_time_product(square) for _ in range(3))
        if 2 * size**3 / seconds > best:
            best, best_size = 2 * size**3 / seconds, size
        # The next size costs eight times as much, three times over. Types that the CPU emulates, as fp16
        # often is, are a hundred times slower and stop early.
        if time.perf_counter() + 3 * 8 * seconds > deadline:
            break
    threads = torch.get_num_threads()
    plural = "" if threads == 1 else "s"
    how = f"{best_size} x {best_size} {_type_name(dtype)} products timed at start, {threads} thread{plural}"
    return Peak(best, f"CPU: {how}")


def _time_product(square: torch.Tensor) -> float:
    start = time.perf_counter()
    torch.mm(square, square)
    return time.perf_counter() - start


def _type_name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
