"""The jobs that have a golden file. `python tests/launch/job_cases.py` writes the files anew."""

from dataclasses import dataclass, field, replace
from pathlib import Path

from launch.slurm.job import Job, resource_lines, site_lines
from launch.slurm.template import read_template

FOLDER = Path(__file__).parent
GOLDEN = FOLDER / "golden_jobs"
TEMPLATE = FOLDER / "small.sbatch"

_PLAIN = Job(
    name="tiny",
    nodes=2,
    ranks_per_node=2,
    on_gpus=False,
    cpus_per_rank=2,
    seconds=4 * 3600,
    folder=Path("/work/parallax/runs/slurm/tiny-20260102-030405"),
    directory=Path("/work/parallax"),
    python="/work/venv/bin/python",
    run="runs/tiny",
    environment={"PARALLAX_PLANNED_RANKS": "4"},
)


@dataclass(frozen=True)
class JobCase:
    """A job, and the name of its file."""

    name: str
    job: Job = field(default=_PLAIN)


CASES = [
    JobCase("cpus"),
    JobCase(
        "site",
        replace(
            _PLAIN,
            on_gpus=True,
            gpu_type="a100",
            seconds=36 * 3600,
            partition="gpu",
            account="my project",
            qos="long",
            constraint="ib&a100",
            mem="200G",
            mail="me@example.org",
            dependency="afterok:12",
            modules=("gcc/12.3", "cuda/12.8"),
            activate="source ~/venv/bin/activate",
            network_interface="ib0",
            restarts=3,
            environment={"NCCL_IB_HCA": "mlx5", "PARALLAX_PLANNED_RANKS": "4"},
            sbatch=("--exclusive",),
        ),
    ),
    JobCase("container", replace(_PLAIN, python="python", container="apptainer exec --nv image.sif")),
    JobCase("sweep", replace(_PLAIN, name="tiny-sweep", run="runs/tiny-sweep-x", members=6, at_once=2)),
]


def text_of(case: JobCase) -> str:
    """The rendered script."""
    return read_template(str(TEMPLATE)).fill(resource_lines(case.job), site_lines(case.job))


if __name__ == "__main__":
    for case in CASES:
        (GOLDEN / f"{case.name}.sbatch").write_text(text_of(case), encoding="utf-8")
