from collections.abc import Callable
from functools import partial
from types import ModuleType
from typing import Any

_MEGA = 1e6


def open_gpus() -> list[Callable[[], dict[str, float]]]:
    """For each GPU of this node, what reads its use, memory and power through NVML.

    They are all that NVML shows, numbered as it does, which CUDA_VISIBLE_DEVICES does not change. Empty without
    NVIDIA's driver, or without nvidia-ml-py, which brings the module pynvml: a run does not end over a measurement
    that an older environment lacks.
    """
    try:
        import pynvml
    except ImportError:
        return []
    try:
        pynvml.nvmlInit()
        count = pynvml.nvmlDeviceGetCount()
        handles = [pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(count)]
    except pynvml.NVMLError:
        return []
    return [partial(_read, pynvml, index, handle) for index, handle in enumerate(handles)]


def _read(nvml: ModuleType, index: int, handle: Any) -> dict[str, float]:
    """One GPU's values by MLflow's names; what it does not tell, such as the use of a MIG device, is left out."""
    values: dict[str, float] = {}
    for read in (_utilization, _memory, _power):
        try:
            values |= read(nvml, handle)
        except nvml.NVMLError:
            continue
    return {f"gpu_{index}_{name}": value for name, value in values.items()}


def _utilization(nvml: ModuleType, handle: Any) -> dict[str, float]:
    return {"utilization_percentage": nvml.nvmlDeviceGetUtilizationRates(handle).gpu}


def _memory(nvml: ModuleType, handle: Any) -> dict[str, float]:
    memory = nvml.nvmlDeviceGetMemoryInfo(handle)
    return {
        "memory_usage_megabytes": memory.used / _MEGA,
        "memory_usage_percentage": memory.used / memory.total * 100,
    }


def _power(nvml: ModuleType, handle: Any) -> dict[str, float]:
    milliwatts = nvml.nvmlDeviceGetPowerUsage(handle)
    return {
        "power_usage_watts": milliwatts / 1000,
        "power_usage_percentage": milliwatts / nvml.nvmlDeviceGetEnforcedPowerLimit(handle) * 100,
    }
