import json
import subprocess
import sys
import textwrap

import torch

from parallax.metrics.memory import memory_usage

CPU = torch.device("cpu")
MEBIBYTE = 2**20


def in_a_fresh_process(script: str) -> list[list[int]]:
    """What a script prints as JSON. Here, memory that earlier tests gave back would be taken again unseen."""
    command = [sys.executable, "-c", textwrap.dedent(script)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=120, check=True)
    found = json.loads(done.stdout)
    assert isinstance(found, list)
    return found


def test_resident_memory_rises_with_what_is_held_and_the_peak_stays():
    before, during, after = in_a_fresh_process("""
        import json, torch
        from parallax.metrics.memory import memory_usage
        def usage():
            found = memory_usage(torch.device("cpu"))
            return [found.current_bytes, found.peak_bytes]
        before = usage()
        held = torch.ones(64 * 2**20 // 4)
        during = usage()
        del held
        print(json.dumps([before, during, usage()]))
    """)
    assert 48 * MEBIBYTE < during[0] - before[0] < 96 * MEBIBYTE
    assert after[0] < during[0]
    # The kernel counts resident pages in portions per thread.
    assert after[1] > during[0] - 8 * MEBIBYTE


def test_the_peak_is_never_below_the_present_value():
    usage = memory_usage(CPU)
    assert usage.peak_bytes >= usage.current_bytes > 0
