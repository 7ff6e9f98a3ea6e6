"""What happens to jobs and their nodes, and what an operator then does about it."""

import os
import signal
from collections.abc import Callable
from random import Random

from evaluation.slurm.cluster import Cluster
from evaluation.slurm.runs import SlurmRun

Repair = Callable[[], None]
"""Brings back what was taken from the cluster, once the job has left it."""
Fault = Callable[[Cluster, SlurmRun, str, Random], Repair]
"""Happens to a running job; how it is repaired."""

RANK = "-u -m parallax.train"
"""In the command line of a process that trains."""


def signal_job(cluster: Cluster, run: SlurmRun, job: str, random: Random) -> Repair:
    """As `--signal=B:USR1@120` does ahead of the time limit."""
    cluster.call("scancel", "--batch", "--signal=USR1", job)
    return _nothing


def requeue_job(cluster: Cluster, run: SlurmRun, job: str, random: Random) -> Repair:
    """An operator puts it back into the queue."""
    cluster.call("scontrol", "requeue", job)
    return _nothing


def preempt_job(cluster: Cluster, run: SlurmRun, job: str, random: Random) -> Repair:
    """A job of a higher partition wants all nodes."""
    high = ["--partition=high", "--exclusive", "--nodes=4", "--output=/dev/null", "--wrap=true"]
    cluster.call("sbatch", "--parsable", *high)
    return _nothing


def kill_rank(cluster: Cluster, run: SlurmRun, job: str, random: Random) -> Repair:
    """Kill -9 of one process that trains."""
    ranks = [pid for node in cluster.nodes_of(job) for pid in cluster.processes(node, RANK)]
    if ranks:
        os.kill(random.choice(ranks), signal.SIGKILL)
    return _nothing


def kill_node(cluster: Cluster, run: SlurmRun, job: str, random: Random) -> Repair:
    """All processes of a node end at once."""
    node = random.choice(cluster.nodes_of(job))
    cluster.node("kill", node)
    return lambda: cluster.node("start", node)


def cut_cable(cluster: Cluster, run: SlurmRun, job: str, random: Random) -> Repair:
    """A node can no longer be reached, and runs on."""
    node = random.choice(cluster.nodes_of(job))
    cluster.node("cut", node)
    return lambda: cluster.node("join", node)


def kill_daemon(cluster: Cluster, run: SlurmRun, job: str, random: Random) -> Repair:
    """Slurm's daemon on a node; the ranks run on as orphans."""
    node = random.choice(cluster.nodes_of(job))
    cluster.node("kill-slurmd", node)
    return lambda: cluster.node("start-slurmd", node)


FAULTS: dict[str, Fault] = {
    "signal": signal_job,
    "requeue": requeue_job,
    "preemption": preempt_job,
    "kill -9 of a rank": kill_rank,
    "kill -9 of a node": kill_node,
    "cable cut": cut_cable,
    "kill -9 of slurmd": kill_daemon,
}


def _nothing() -> None:
    """There is nothing to repair."""
