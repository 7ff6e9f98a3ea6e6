import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

_FACTS = {
    "job_id": "SLURM_JOB_ID",
    "restart_count": "SLURM_RESTART_COUNT",
    "array_job_id": "SLURM_ARRAY_JOB_ID",
    "array_task_id": "SLURM_ARRAY_TASK_ID",
    "nodelist": "SLURM_JOB_NODELIST",
    "partition": "SLURM_JOB_PARTITION",
    "gpus_on_node": "SLURM_GPUS_ON_NODE",
}


@dataclass(frozen=True)
class Attempt:
    """Which start of which batch job this is. Slurm starts a requeued job again under the same number."""

    job: str
    restart: int
    """0: the first start; then one more with every requeue."""

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """The inverse of `str`; None: the text is no attempt."""
        job, point, restart = text.rpartition(".")
        return cls(job, int(restart)) if job and point and restart.isdecimal() else None

    def __str__(self) -> str:
        return f"{self.job}.{self.restart}"

    def supersedes(self, other: "Attempt") -> bool:
        """Whether the other one is over by Slurm's word: it requeues a job once it has given up its last start.

        What is left of that may live on, on a node that Slurm cannot reach.
        """
        return self.job == other.job and self.restart > other.restart


def read_attempt(environment: Mapping[str, str] = os.environ) -> Attempt | None:
    """The attempt that this process belongs to; None: it is in no job of Slurm's."""
    job, restart = environment.get("SLURM_JOB_ID"), environment.get("SLURM_RESTART_COUNT", "0")
    return Attempt(job, int(restart)) if job and restart.isdecimal() else None


def read_job_facts(environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """What Slurm says of the job, by short name; empty outside of one.

    `restart_count`, which Slurm leaves out of a job's first start, is always there.
    """
    if not environment.get("SLURM_JOB_ID"):
        return {}
    facts = {name: environment[variable] for name, variable in _FACTS.items() if environment.get(variable)}
    return {"restart_count": "0"} | facts
