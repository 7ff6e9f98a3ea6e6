from collections.abc import Sequence

from launch.request import Launcher, Request
from launch.slurm.cluster import check_slurm
from parallax.config.statement import Statement


class Slurm(Launcher):
    """A batch job that starts torchrun on every node; see `launch/slurm/submit.py`."""

    suggested_engine = "native"
    needs_port = False

    def statements(self, request: Request) -> Sequence[Statement]:
        """Nothing: it only starts processes."""
        return ()

    def check(self, request: Request) -> None:
        """Refuses where Slurm is missing."""
        check_slurm()

    def command(self, request: Request) -> tuple[str, ...]:
        """The submission, but for the folder of the script."""
        return ("sbatch", "job.sbatch", *request.arguments)

    def variables(self, request: Request) -> dict[str, str]:
        """Nothing: the script sets them on the nodes."""
        return {}
