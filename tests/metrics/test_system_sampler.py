import json
import resource
import sys
import threading
import time
from types import SimpleNamespace

import psutil
import pytest

from parallax.errors import FencedError
from parallax.metrics.nvml import open_gpus
from parallax.metrics.system import SystemProbe
from parallax.metrics.system_sampler import SystemSampler

OF_MLFLOW = {
    "cpu_utilization_percentage",
    "system_memory_usage_megabytes",
    "system_memory_usage_percentage",
    "disk_usage_percentage",
    "disk_usage_megabytes",
    "disk_available_megabytes",
    "network_receive_megabytes",
    "network_transmit_megabytes",
}


def wait_until(condition):
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


def lines_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


@pytest.fixture
def path(tmp_path):
    return tmp_path / "system" / "here.jsonl"


@pytest.fixture
def without_nvml(monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", None)


@pytest.fixture
def nvml(monkeypatch):
    """A node of two GPUs, the second of which does not tell its use and power."""

    class NVMLError(Exception):
        pass

    def known_of_the_first(value):
        def read(handle):
            if handle == "second":
                raise NVMLError("not supported")
            return value

        return read

    stand_in = SimpleNamespace(
        NVMLError=NVMLError,
        nvmlInit=lambda: None,
        nvmlDeviceGetCount=lambda: 2,
        nvmlDeviceGetHandleByIndex=lambda index: ["first", "second"][index],
        nvmlDeviceGetUtilizationRates=known_of_the_first(SimpleNamespace(gpu=75, memory=10)),
        nvmlDeviceGetMemoryInfo=lambda handle: SimpleNamespace(used=20e9, total=80e9),
        nvmlDeviceGetPowerUsage=known_of_the_first(350_000),
        nvmlDeviceGetEnforcedPowerLimit=known_of_the_first(700_000),
    )
    monkeypatch.setitem(sys.modules, "pynvml", stand_in)
    return stand_in


def test_a_node_is_measured_under_mlflows_names(tmp_path, without_nvml):
    probe = SystemProbe(tmp_path)
    start = time.perf_counter()
    while time.perf_counter() - start < 0.1:
        pass
    measured = probe.measure()
    assert measured.keys() >= {"cpu_utilization_percentage", "system_memory_usage_percentage"}
    assert measured.keys() <= OF_MLFLOW | {"disk_read_megabytes", "disk_write_megabytes"}
    assert 0 < measured["cpu_utilization_percentage"] <= 100
    assert 0 < measured["system_memory_usage_percentage"] < 100
    total = psutil.virtual_memory().total / 1e6
    assert measured["system_memory_usage_megabytes"] == pytest.approx(
        measured["system_memory_usage_percentage"] / 100 * total, rel=1e-4
    )
    assert measured["disk_available_megabytes"] == pytest.approx(psutil.disk_usage(tmp_path).free / 1e6, rel=0.1)


def test_traffic_is_counted_from_the_start_in_megabytes(tmp_path, without_nvml, monkeypatch):
    counted = SimpleNamespace(bytes_recv=5_000_000, bytes_sent=1_000_000)
    monkeypatch.setattr("psutil.net_io_counters", lambda: counted)
    probe = SystemProbe(tmp_path)
    counted.bytes_recv, counted.bytes_sent = 8_000_000, 1_500_000
    measured = probe.measure()
    assert (measured["network_receive_megabytes"], measured["network_transmit_megabytes"]) == (3.0, 0.5)


def test_what_a_machine_does_not_tell_is_left_out(tmp_path, without_nvml, monkeypatch):
    def nowhere():
        raise RuntimeError("couldn't find /proc/diskstats")

    monkeypatch.setattr("psutil.disk_io_counters", nowhere)
    monkeypatch.setattr("psutil.net_io_counters", lambda: None)
    measured = SystemProbe(tmp_path).measure()
    assert not [name for name in measured if name.startswith(("network", "disk_read", "disk_write"))]
    assert "cpu_utilization_percentage" in measured


def test_gpus_tell_use_memory_and_power_where_they_can(tmp_path, nvml):
    measured = SystemProbe(tmp_path).measure()
    assert {name: value for name, value in measured.items() if name.startswith("gpu")} == {
        "gpu_0_utilization_percentage": 75,
        "gpu_0_memory_usage_megabytes": 20_000,
        "gpu_0_memory_usage_percentage": 25,
        "gpu_0_power_usage_watts": 350,
        "gpu_0_power_usage_percentage": 50,
        "gpu_1_memory_usage_megabytes": 20_000,
        "gpu_1_memory_usage_percentage": 25,
    }


def test_there_are_no_gpus_without_the_package_or_the_driver(nvml, monkeypatch):
    def no_driver():
        raise nvml.NVMLError("NVML Shared Library Not Found")

    assert len(open_gpus()) == 2
    nvml.nvmlInit = no_driver
    assert open_gpus() == []
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert open_gpus() == []


def test_samples_are_numbered_on_over_restarts_and_a_torn_line_is_cut_off(path):
    with SystemSampler(path, 0.01, warn=pytest.fail):
        wait_until(lambda: len(lines_of(path)) >= 2)
    before = len(lines_of(path))
    with path.open("a") as file:
        file.write('{"step": 99, "ti')
    with SystemSampler(path, 0.01, warn=pytest.fail):
        wait_until(lambda: path.read_bytes().count(b"\n") >= before + 2)
    records = lines_of(path)
    assert [record["step"] for record in records] == list(range(len(records)))
    assert all(abs(record["time"] - time.time()) < 20 for record in records)
    assert all("cpu_utilization_percentage" in record for record in records)


def test_a_run_shorter_than_the_interval_has_one_sample_and_one_of_a_moment_none(path, monkeypatch):
    monkeypatch.setattr("parallax.metrics.system_sampler._LAST_SAMPLE_SECONDS", 0.2)
    with SystemSampler(path, 60.0, warn=pytest.fail):
        pass
    assert not path.exists()
    with SystemSampler(path, 60.0, warn=pytest.fail):
        time.sleep(0.3)
    assert len(lines_of(path)) == 1


def test_a_full_disk_costs_one_warning_and_samples_go_on_once_there_is_room(path):
    warnings, (soft, hard) = [], resource.getrlimit(resource.RLIMIT_FSIZE)
    path.parent.mkdir()
    path.write_text(json.dumps({"step": 4}) + "\n")
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
    try:
        with SystemSampler(path, 0.01, warnings.append):
            wait_until(lambda: warnings)
            time.sleep(0.1)
            assert [line["step"] for line in lines_of(path)] == [4]
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
            wait_until(lambda: len(lines_of(path)) > 2)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [line["step"] for line in lines_of(path)[:3]] == [4, 5, 6]
    [warning] = warnings
    assert f"{path}: the disk or quota is full" in warning
    assert "the run goes on" in warning


def test_a_probe_that_fails_costs_one_warning(path, monkeypatch):
    def fail(self):
        raise ValueError("no such sensor")

    monkeypatch.setattr(SystemProbe, "measure", fail)
    warnings = []
    with SystemSampler(path, 0.01, warnings.append) as sampler:
        wait_until(lambda: not sampler._thread.is_alive())
    assert warnings == [f"{path}: ValueError: no such sensor; the run goes on without system metrics"]


def test_nothing_is_written_once_the_run_is_another_processs(path):
    def fenced():
        raise FencedError("claimed")

    with SystemSampler(path, 0.01, pytest.fail, fenced) as sampler:
        wait_until(lambda: not sampler._thread.is_alive())
    assert not path.exists()


def test_a_file_system_that_hangs_does_not_hold_up_the_end(path, monkeypatch):
    monkeypatch.setattr("parallax.metrics.system_sampler._STOP_SECONDS", 0.1)
    hanging, answer = threading.Event(), threading.Event()

    def hang(self):
        hanging.set()
        answer.wait(20)
        return {}

    monkeypatch.setattr(SystemProbe, "measure", hang)
    with SystemSampler(path, 0.01, lambda text: None) as sampler:
        assert hanging.wait(10)
        start = time.perf_counter()
    assert time.perf_counter() - start < 2
    answer.set()
    sampler._thread.join(10)
