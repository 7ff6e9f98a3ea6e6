import statistics
import time
from collections.abc import Callable, Mapping

import torch

from evaluation.gpu_proof.setting import Setting

_FLUSHED_BYTES = 256 << 20
"""More than a GPU's L2, which a buffer of zeros drives everything out of."""
_WARM_UP = 3


def median_seconds(calls: Mapping[str, Callable[[], object]], rounds: int, setting: Setting) -> dict[str, float]:
    """Seconds of each call, the calls in turn in every round; what they compile, they compile before.

    On a GPU between two events, with nothing of the call before in the caches. Clearing those takes the GPU long
    enough for the host to be ahead of it.
    """
    for call in calls.values():
        for _ in range(_WARM_UP):
            call()
    measure = _on_gpu if setting.on_gpu else _on_host
    taken: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            taken[name].append(measure(call, setting))
    return {name: statistics.median(seconds) for name, seconds in taken.items()}


def _on_gpu(call: Callable[[], object], setting: Setting) -> float:
    start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
    setting.synchronize()
    torch.empty(_FLUSHED_BYTES, dtype=torch.int8, device=setting.device).zero_()
    start.record()
    call()
    stop.record()
    setting.synchronize()
    return start.elapsed_time(stop) / 1e3


def _on_host(call: Callable[[], object], setting: Setting) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start
