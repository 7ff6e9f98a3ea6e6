"""Forked pairs of ranks, for drivers whose processes are killed or live in a namespace of their own."""

import os
import sys
import tempfile
import traceback
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import torch.distributed as dist


def fork_ranks(work: Callable[[int], None]) -> list[int]:
    """Runs `work(rank)` in two new processes that are one group; returns their exit statuses.

    A rank that raises has status 1; the driver's own program goes on in the parent alone.
    """
    with tempfile.TemporaryDirectory() as folder:
        children = []
        for rank in range(2):
            child = os.fork()
            if child == 0:
                _work_and_leave(work, rank, Path(folder) / "store")
            children.append(child)
        return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]


def _work_and_leave(work: Callable[[int], None], rank: int, store: Path) -> None:
    status = 1
    try:
        dist.init_process_group(
            "gloo", init_method=f"file://{store}", rank=rank, world_size=2, timeout=timedelta(seconds=60)
        )
        work(rank)
        status = 0
    except Exception:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
