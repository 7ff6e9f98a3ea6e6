import os
import subprocess
import sys

import pytest

_PROGRAM = """
import resource, sys, torch
from parallax.runtime.allocator import keep_freed_memory
if sys.argv[1] == "keep":
    keep_freed_memory()
for _ in range(16):  # Until every hole in the heap has been used once.
    torch.ones(1 << 24)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    torch.ones(1 << 24)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
_PAGES_OF_ONE = (1 << 26) // 4096


def page_faults(mode: str, **environment: str) -> int:
    clean = {k: v for k, v in os.environ.items() if not k.startswith("MALLOC_") and k != "GLIBC_TUNABLES"}
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM, mode],
        env=clean | environment,
        stdout=subprocess.PIPE,
        text=True,
        timeout=120,
        check=True,
    )
    return int(done.stdout)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the setting is glibc's")
def test_a_freed_tensor_is_taken_again_without_new_pages() -> None:
    assert page_faults("keep") < _PAGES_OF_ONE / 4
    assert page_faults("default") > 4 * _PAGES_OF_ONE


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the setting is glibc's")
def test_a_setting_of_the_users_wins() -> None:
    assert page_faults("keep", MALLOC_TRIM_THRESHOLD_="131072") > 4 * _PAGES_OF_ONE
