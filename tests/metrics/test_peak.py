import time

import pytest
import torch

from parallax.metrics.gpu_table import lookup_gpu_peak
from parallax.metrics.peak import Peak, measure_peak, mfu

BF16, FP16, FP32 = torch.bfloat16, torch.float16, torch.float32


@pytest.mark.parametrize("dtype", [FP32, BF16, FP16])
def test_a_cpu_is_measured_in_well_under_a_second(dtype):
    start = time.perf_counter()
    peak = measure_peak(torch.device("cpu"), dtype)
    assert time.perf_counter() - start < 2
    assert peak.flops_per_second > 1e6
    assert "timed now" in peak.source
    assert len(f"peak     99,999 GFLOP/s ({peak.source})") <= 80
    assert str(dtype).removeprefix("torch.") in peak.source


def test_measuring_leaves_the_random_generator_alone():
    before = torch.get_rng_state()
    measure_peak(torch.device("cpu"), FP32)
    assert torch.equal(torch.get_rng_state(), before)


# Figures as printed in NVIDIA's data sheets and white papers, dense, fp32 accumulation.
@pytest.mark.parametrize(
    ("name", "multiprocessors", "tflops"),
    [
        ("NVIDIA A100-SXM4-40GB", 108, 312),
        ("NVIDIA A100 80GB PCIe", 108, 312),
        ("NVIDIA H100 80GB HBM3", 132, 989.4),
        ("NVIDIA H100 PCIe", 114, 756.4),
        ("NVIDIA H100 NVL", 132, 835.5),
        ("NVIDIA H200", 132, 989.4),
        ("NVIDIA GH200 480GB", 132, 989.4),
        ("NVIDIA L4", 58, 121),
        ("NVIDIA L40", 142, 181),
        ("NVIDIA L40S", 142, 362),
        ("NVIDIA A10", 72, 125),
        ("NVIDIA A10G", 80, 70),
        ("NVIDIA RTX A6000", 84, 154.8),
        ("NVIDIA RTX 6000 Ada Generation", 142, 364.2),
        ("NVIDIA GeForce RTX 3050", 20, 18.2),
        ("NVIDIA GeForce RTX 3050", 18, 13.5),
        ("NVIDIA GeForce RTX 3060", 28, 25.5),
        ("NVIDIA GeForce RTX 3070", 46, 40.6),
        ("NVIDIA GeForce RTX 3080", 68, 59.5),
        ("NVIDIA GeForce RTX 3090", 82, 71.2),
        ("NVIDIA GeForce RTX 4070", 46, 58.3),
        ("NVIDIA GeForce RTX 4080", 76, 97.5),
        ("NVIDIA GeForce RTX 4090", 128, 165.2),
        ("NVIDIA GeForce RTX 5090", 170, 209.5),
    ],
)
def test_known_cards_have_their_dense_peak(name, multiprocessors, tflops):
    for dtype in (BF16, FP16):
        assert lookup_gpu_peak(name, multiprocessors, dtype) == pytest.approx(tflops * 1e12, rel=0.005)


@pytest.mark.parametrize(
    ("name", "multiprocessors", "tflops"),
    [
        ("Tesla T4", 40, 65),
        ("Tesla V100-SXM2-16GB", 80, 125),
        ("Tesla V100-PCIE-16GB", 80, 112),
        ("NVIDIA GeForce RTX 2080 Ti", 68, 53.8),
    ],
)
def test_cards_without_bf16_have_a_peak_in_fp16_only(name, multiprocessors, tflops):
    assert lookup_gpu_peak(name, multiprocessors, FP16) == pytest.approx(tflops * 1e12, rel=0.005)
    assert lookup_gpu_peak(name, multiprocessors, BF16) is None


@pytest.mark.parametrize(
    ("name", "multiprocessors"),
    [
        ("NVIDIA GeForce RTX 3050 6GB Laptop GPU", 20),
        ("NVIDIA GeForce RTX 4090 D", 114),
        ("NVIDIA GeForce RTX 3080", 46),
        ("NVIDIA A100-SXM4-40GB MIG 1g.5gb", 14),
        ("GRID A100-10C", 108),
        ("NVIDIA RTX A1000", 18),
        ("NVIDIA H20", 78),
        ("Quadro P5000", 20),
        ("AMD Instinct MI300X", 304),
    ],
)
def test_cards_that_only_resemble_a_known_one_have_none(name, multiprocessors):
    assert lookup_gpu_peak(name, multiprocessors, FP16) is None


def test_fp32_on_a_gpu_has_no_peak():
    assert lookup_gpu_peak("NVIDIA A100-SXM4-40GB", 108, FP32) is None


def test_utilisation_is_the_share_of_the_peak():
    assert mfu(2e9, 1000, Peak(8e12, "a card")) == pytest.approx(0.25)


def test_utilisation_of_an_unknown_peak_is_unknown():
    assert mfu(2e9, 1000, Peak(None, "unknown")) is None
