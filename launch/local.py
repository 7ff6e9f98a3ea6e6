from collections.abc import Sequence

from launch.request import Launcher, Request
from parallax.config.statement import Statement
from parallax.errors import JoinError


class Local(Launcher):
    """One process, started as it is."""

    suggested_engine = "native"
    needs_port = False

    def statements(self, request: Request) -> Sequence[Statement]:
        """Nothing."""
        return ()

    def check(self, request: Request) -> None:
        """Refuses several processes.

        Raises:
            JoinError: with the launcher to use.
        """
        if request.place.world_size > 1:
            raise JoinError(
                f"--via local starts one process, and {request.place.world_size} are asked for; use "
                f"--via torchrun, accelerate or deepspeed"
            )

    def command(self, request: Request) -> tuple[str, ...]:
        """The program itself."""
        return (request.python, "-m", *request.program)

    def variables(self, request: Request) -> dict[str, str]:
        """Nothing."""
        return {}
