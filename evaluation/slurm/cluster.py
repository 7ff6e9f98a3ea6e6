"""The sandbox as Python sees it: what is missing for one, jobs and their ends, and what happens to nodes."""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from launch.slurm.cluster import JobFacts, parse_facts

CHECKOUT = Path(__file__).parents[2]
SANDBOX = CHECKOUT / "slurm" / "sandbox"
TEMPLATE = CHECKOUT / "slurm" / "train.sbatch"
NODES = 4
_PROGRAMS = ("slurmctld", "slurmd", "munged", "sbatch", "srun", "scontrol", "ip")
_COMMAND_SECONDS = 120.0


def why_no_cluster() -> str | None:
    """What a sandbox lacks here; None: nothing."""
    path = f"{os.environ['PATH']}{os.pathsep}/usr/sbin"
    absent = [name for name in _PROGRAMS if shutil.which(name, path=path) is None]
    if absent:
        return f"not installed: {', '.join(absent)}; as root: slurm/sandbox/install.sh"
    if os.geteuid() != 0:
        return "nodes with addresses of their own need root"
    return None


class Cluster:
    """A sandbox of four nodes in a folder and at a port of its own."""

    def __init__(self) -> None:
        self.run = Path(tempfile.mkdtemp(prefix="plx-")) / "slurm"
        self.environment = {name: value for name, value in os.environ.items() if not name.startswith("SLURM")}
        for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "OMP_NUM_THREADS"):
            self.environment.pop(name, None)
        self.environment |= {
            "SLURM_CONF": str(self.run / "etc" / "slurm.conf"),
            "PARALLAX_PYTHON": sys.executable,
            "PYTHONPATH": str(CHECKOUT),
            "OMP_NUM_THREADS": "1",
        }

    def __enter__(self) -> Self:
        try:
            self.up()
        except BaseException:
            if (self.run / "shape").exists():  # some of it is there
                self.down()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.down()

    def up(self) -> None:
        """Starts it. Raises: CalledProcessError."""
        port = _free_port()
        self.call(str(SANDBOX / "up.sh"), "--run", str(self.run), "--nodes", str(NODES), "--port", str(port))

    def down(self) -> None:
        """Ends all of it."""
        self.call(str(SANDBOX / "down.sh"), "--run", str(self.run))
        self.run.parent.rmdir()

    def call(self, *command: str) -> str:
        """Runs a command with this cluster's environment; its output."""
        done = subprocess.run(
            command,
            env=self.environment,
            cwd=CHECKOUT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=_COMMAND_SECONDS,
        )
        assert done.returncode == 0, f"{' '.join(command)}: {done.returncode}\n{done.stdout}"
        return done.stdout.strip()

    def submit(
        self,
        *arguments: str,
        options: Sequence[str] = (),
        variables: Mapping[str, str] | None = None,
        log: Path,
    ) -> str:
        """`sbatch slurm/train.sbatch`; the job's number."""
        more = [f"{name}={value}" for name, value in (variables or {}).items()]
        command = ["env", *more, "sbatch", "--parsable", f"--output={log}", "--cpus-per-task=2", *options]
        return self.call(*command, str(TEMPLATE), *arguments)

    def show(self, job: str) -> JobFacts:
        """What Slurm says of it now."""
        return parse_facts(self.call("scontrol", "--oneliner", "show", "job", job))

    def wait_until(self, condition: Callable[[], bool], what: str, within_seconds: float, log: Path) -> float:
        """Waits for a condition; the seconds that it took."""
        began = time.monotonic()
        while not condition():
            waited = time.monotonic() - began
            if waited > within_seconds:
                shown = log.read_text() if log.is_file() else ""
                now = self.call("squeue") + "\n" + self.call("sinfo", "--Node", "--long")
                raise AssertionError(f"not within {within_seconds} s: {what}\n{now}\n{shown}")
            time.sleep(0.1)
        return time.monotonic() - began

    def tend(self, job: str) -> bool:
        """What an operator does for a job that Slurm holds: nodes that it drained return, the job is let go."""
        if not self.show(job).is_held:
            return False
        for node in self.call(
            "sinfo", "--noheader", "--Node", "--partition=low", "--states=drained", "-o%N"
        ).split():
            self.call("scontrol", "update", f"nodename={node}", "state=resume")
        self.call("scontrol", "release", job)
        return True

    def finish(self, job: str, log: Path, within_seconds: float = 200.0) -> JobFacts:
        """Waits for the end of a job."""
        self.wait_until(lambda: self.show(job).is_over, f"the end of job {job}", within_seconds, log)
        return self.show(job)

    def node(self, action: str, number: int) -> None:
        """`slurm/sandbox/node.sh`."""
        self.call(str(SANDBOX / "node.sh"), action, str(number), "--run", str(self.run))

    def wait_for_nodes(self) -> None:
        """Waits until every node is idle, so that the next job begins on node1."""
        idle = ["sinfo", "--noheader", "--partition=low", "--states=idle", "--format=%D"]
        self.wait_until(lambda: self.call(*idle) == str(NODES), "all nodes idle", 60.0, self.run / "log")

    def nodes_of(self, job: str) -> list[int]:
        """Numbers of the nodes that it runs on."""
        names = self.call("scontrol", "show", "hostnames", self.show(job).nodes).split()
        return [int(name.removeprefix("node")) for name in names]

    def processes(self, node: int, word: str) -> list[int]:
        """Process ids, as seen from here, of what runs on a node and has the word in its command line."""
        namespace = _namespace(self._first_process(node))
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                if _namespace(int(folder.name)) == namespace and word in command:
                    found.append(int(folder.name))
            except OSError:
                continue  # it has ended
        return sorted(found)

    def _first_process(self, node: int) -> int:
        return int((self.run / "pid" / f"node{node}.pid").read_text())


def _namespace(pid: int) -> str:
    return str(Path(f"/proc/{pid}/ns/net").readlink())


def _free_port() -> int:
    """Free, and so is the one after it, most likely."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])
