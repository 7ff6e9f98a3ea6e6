from collections.abc import Callable
from pathlib import Path

import psutil

from parallax.metrics.nvml import open_gpus

_MEGA = 1e6


class SystemProbe:
    """Measures the node that this process runs on: all of it, whoever uses it.

    The names are those of MLflow's own system metrics, beside `disk_read_megabytes` and `disk_write_megabytes`,
    which it lacks. A megabyte has 10^6 bytes. What a machine does not tell, as in some containers, is left out.

    Args:
        folder: whose file system `disk_usage_…` and `disk_available_…` are about.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._gpus = open_gpus()
        self._counted_from = self._counters()
        # The first call has nothing to compare with and returns 0.
        psutil.cpu_percent()

    def measure(self) -> dict[str, float]:
        """Processor use (percent of all processors) since the last call; memory, file system and GPUs now.

        `network_…` and `disk_read_…`, `disk_write_…` count from the making of this probe.
        """
        values: dict[str, float] = {}
        for read in (_processors, _memory, self._file_system, self._traffic, *self._gpus):
            values |= _attempt(read)
        return {name: round(value, 3) for name, value in values.items()}

    def _file_system(self) -> dict[str, float]:
        usage = psutil.disk_usage(str(self._folder))
        return {
            "disk_usage_percentage": usage.percent,
            "disk_usage_megabytes": usage.used / _MEGA,
            "disk_available_megabytes": usage.free / _MEGA,
        }

    def _traffic(self) -> dict[str, float]:
        now, then = self._counters(), self._counted_from
        return {name: (now[name] - then[name]) / _MEGA for name in now.keys() & then.keys()}

    def _counters(self) -> dict[str, float]:
        return _attempt(_network) | _attempt(_disks)


def _attempt(read: Callable[[], dict[str, float]]) -> dict[str, float]:
    """What it reads, or nothing where the machine does not tell."""
    try:
        return read()
    except (psutil.Error, OSError, RuntimeError, NotImplementedError):
        return {}


def _processors() -> dict[str, float]:
    return {"cpu_utilization_percentage": psutil.cpu_percent()}


def _memory() -> dict[str, float]:
    memory = psutil.virtual_memory()
    return {
        "system_memory_usage_megabytes": memory.used / _MEGA,
        "system_memory_usage_percentage": memory.used / memory.total * 100,
    }


def _network() -> dict[str, float]:
    counted = psutil.net_io_counters()
    if counted is None:
        return {}
    return {
        "network_receive_megabytes": counted.bytes_recv,
        "network_transmit_megabytes": counted.bytes_sent,
    }


def _disks() -> dict[str, float]:
    counted = psutil.disk_io_counters()
    if counted is None:
        return {}
    return {"disk_read_megabytes": counted.read_bytes, "disk_write_megabytes": counted.write_bytes}
