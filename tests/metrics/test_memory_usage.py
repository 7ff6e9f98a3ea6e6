import torch

from parallax.metrics.memory import memory_usage

CPU = torch.device("cpu")
MEBIBYTE = 2**20


def test_resident_memory_rises_with_what_is_held_and_the_peak_stays():
    before = memory_usage(CPU)
    held = torch.ones(64 * MEBIBYTE // 4)
    during = memory_usage(CPU)
    assert 48 * MEBIBYTE < during.current_bytes - before.current_bytes < 96 * MEBIBYTE
    del held
    after = memory_usage(CPU)
    assert after.current_bytes < during.current_bytes
    # The kernel counts resident pages in portions per thread.
    assert after.peak_bytes > during.current_bytes - 8 * MEBIBYTE


def test_the_peak_is_never_below_the_present_value():
    usage = memory_usage(CPU)
    assert usage.peak_bytes >= usage.current_bytes > 0
