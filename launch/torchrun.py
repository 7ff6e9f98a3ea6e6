from collections.abc import Sequence

from launch.request import Launcher, Request
from parallax.config.statement import Statement


class Torchrun(Launcher):
    """PyTorch's own launcher; one node meets at a free port, several at node 0's."""

    suggested_engine = "native"
    needs_port = False

    def statements(self, request: Request) -> Sequence[Statement]:
        """Nothing: it only starts processes."""
        return ()

    def check(self, request: Request) -> None:
        """Nothing: it comes with PyTorch."""

    def command(self, request: Request) -> tuple[str, ...]:
        """`python -m torch.distributed.run`, which torchrun is short for."""
        place = request.place
        meeting = ["--standalone"]
        if place.host:
            meeting = ["--node-rank", str(place.node_rank)]
            meeting += ["--master-addr", place.host, "--master-port", str(place.port)]
        numbers = ["--nnodes", str(place.nodes), "--nproc-per-node", str(place.processes_per_node)]
        return (request.python, "-m", "torch.distributed.run", *numbers, *meeting, "-m", *request.program)

    def variables(self, request: Request) -> dict[str, str]:
        """Nothing."""
        return {}
