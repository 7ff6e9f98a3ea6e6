"""Sizes of caches and memory, and the device's clock by a stand-in: none of it has met a GPU."""

import time
from pathlib import Path

import psutil
import pytest
import torch

from evaluation.attention_bench.bandwidth import measure_bandwidth
from evaluation.attention_bench.caches import Flusher, last_level_bytes
from evaluation.attention_bench.capacity import usable_bytes
from evaluation.attention_bench.cuda_clock import make_cuda_sampler

CPU = torch.device("cpu")


class FakeEvent:
    """CUDA's event, over the host's clock."""

    def __init__(self, enable_timing: bool) -> None:
        assert enable_timing

    def record(self) -> None:
        self.at = time.perf_counter()

    def elapsed_time(self, end: "FakeEvent") -> float:
        return (end.at - self.at) * 1e3


class Flushes:
    """Notes what happens."""

    def __init__(self) -> None:
        self.events: list[str] = []

    def flush(self) -> None:
        self.events.append("flush")

    def call(self) -> None:
        self.events.append("call")
        time.sleep(2e-3)


def test_without_a_graph_events_are_taken_and_the_reason_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> None:
        raise RuntimeError("cannot be captured\nmore")

    monkeypatch.setattr(torch.cuda, "CUDAGraph", refuse)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    monkeypatch.setattr(torch.cuda, "Event", FakeEvent)
    noted = Flushes()
    sampler = make_cuda_sampler(noted.call, 3, noted)
    assert sampler.how == "CUDA events, for no graph can be had: RuntimeError: cannot be captured"
    (mean,) = sampler.sample(cold=False)
    assert 2e-3 <= mean < 1.0
    assert noted.events == ["call"] * 3
    noted.events.clear()
    assert min(sampler.sample(cold=True)) >= 2e-3
    assert noted.events == ["flush", "call"] * 3


def test_the_largest_cache_that_linux_tells_of(tmp_path: Path) -> None:
    for number, size in enumerate(["48K", "2048K", "32M"]):
        (tmp_path / f"index{number}").mkdir()
        (tmp_path / f"index{number}" / "size").write_text(f"{size}\n")
    assert last_level_bytes(CPU, tmp_path) == 32 << 20
    assert last_level_bytes(CPU, tmp_path / "nowhere") == 64 << 20


def test_flushing_writes_more_than_the_caches_hold() -> None:
    flusher = Flusher(CPU)
    assert flusher.num_bytes >= max(4 * last_level_bytes(CPU), 128 << 20)
    flusher.flush()
    assert float(flusher._buffer[-1]) == 1.0


def test_a_container_has_what_it_is_allowed(tmp_path: Path) -> None:
    (tmp_path / "memory.current").write_text("1000\n")
    (tmp_path / "memory.max").write_text("2000\n")
    assert usable_bytes(CPU, tmp_path) == 800
    (tmp_path / "memory.max").write_text("max\n")
    assert 1000 < usable_bytes(CPU, tmp_path) <= psutil.virtual_memory().total


def test_memory_has_a_rate_that_memory_can_have() -> None:
    bandwidth = measure_bandwidth(CPU)
    assert 1e8 < bandwidth.bytes_per_second < 2e12
    assert "reading" in bandwidth.source
