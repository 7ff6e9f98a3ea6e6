import time
from dataclasses import dataclass

import torch

from parallax.metrics.gpu_table import lookup_gpu_peak

_PROBE_SECONDS_PER_SIZE = 0.03
_PROBE_SIZES = (128, 256, 512, 1024, 2048)


@dataclass(frozen=True)
class Peak:
    """The rate that utilisation is stated against."""

    flops_per_second: float | None
    """Dense matrix-multiply rate; None: not known."""
    source: str
    """Where the figure comes from, for the person who reads the log."""


def peak_of_ranks(peak: Peak, world_size: int) -> Peak:
    """That of as many equal devices together."""
    if world_size == 1 or peak.flops_per_second is None:
        return peak
    return Peak(world_size * peak.flops_per_second, f"{world_size} x {peak.source}")


def measure_peak(device: torch.device, dtype: torch.dtype) -> Peak:
    """The matrix-multiply peak of a device in the type that a run computes in.

    On CUDA it is the maker's dense figure for the card's name, looked up; a card or type that is not in the
    table has no peak. On the CPU it is the best rate of square products timed now, within half a second;
    on a machine that is busy with other work it comes out low.

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
    for size in _PROBE_SIZES:
        # Constants: drawing numbers here would move the run's random generator.
        seconds = _fastest_product(torch.full((size, size), 0.5, dtype=dtype))
        rate = 2 * size**3 / seconds
        # Where the time goes into the product itself, a larger one, eight times as long, shows no more. Types
        # that the CPU emulates, as fp16 often is, get there early. Where threads wait for each other on a busy
        # machine, the rate still grows with the size.
        grows = rate > 1.5 * best
        if rate > best:
            best, best_size = rate, size
        if seconds > _PROBE_SECONDS_PER_SIZE / 2 and not grows:
            break
    threads = torch.get_num_threads()
    plural = "" if threads == 1 else "s"
    # Fits beside a rate of five digits on a terminal 80 columns wide.
    what = f"{best_size} x {best_size} {_type_name(dtype)}, {threads} thread{plural}"
    return Peak(best, f"CPU, timed now: {what}")


def _fastest_product(square: torch.Tensor) -> float:
    """Seconds of the fastest of as many products as fit into the time, at least one.

    Other work on the machine can only slow a product down, so the fastest is the nearest to the truth.
    """
    fastest = float("inf")
    begin = now = time.perf_counter()
    while now < begin + _PROBE_SECONDS_PER_SIZE:
        torch.mm(square, square)
        start, now = now, time.perf_counter()
        fastest = min(fastest, now - start)
    return fastest


def _type_name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
