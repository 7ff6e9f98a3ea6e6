import subprocess
import sys
import tempfile
import time
from pathlib import Path

from parallax.cli.doctor_checks.finding import Finding

_RANK = """
import sys, datetime, torch, torch.distributed as dist
dist.init_process_group("gloo", init_method="file://" + sys.argv[1], rank=int(sys.argv[2]), world_size=2,
                        timeout=datetime.timedelta(seconds=float(sys.argv[3])))
total = torch.ones(1)
dist.all_reduce(total)
assert total.item() == 2, total
dist.barrier()
dist.destroy_process_group()
"""


def check_gloo(timeout_seconds: float = 8) -> list[Finding]:
    """Two processes that add 1 and 1 over gloo; they meet over a file, so that no port is needed."""
    with tempfile.TemporaryDirectory() as folder:
        given = (str(Path(folder, "meet")), str(timeout_seconds))
        ranks = [
            subprocess.Popen(
                [sys.executable, "-c", _RANK, given[0], str(rank), given[1]],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
            )
            for rank in range(2)
        ]
        try:
            deadline = time.monotonic() + timeout_seconds
            errors = [rank.communicate(timeout=max(0.0, deadline - time.monotonic()))[1] for rank in ranks]
        except subprocess.TimeoutExpired:
            return [Finding("gloo", "broken", f"two processes did not meet in {timeout_seconds:g} s; {_WAY_OUT}")]
        finally:
            for rank in ranks:
                rank.kill()
                rank.wait()
                if rank.stderr is not None:
                    rank.stderr.close()
    if any(rank.returncode for rank in ranks):
        last = next(iter(reversed("".join(errors).strip().splitlines())), "no message")
        return [Finding("gloo", "broken", f"{last}; {_WAY_OUT}")]
    return [Finding("gloo", "ok", "two processes added their numbers")]


_WAY_OUT = "unset GLOO_SOCKET_IFNAME or name an interface that is up"
