import base64
import json
from collections.abc import Sequence

from launch.machine import check_deepspeed
from launch.place import DEFAULT_PORT
from launch.request import Launcher, Request
from parallax.config.statement import Statement


class DeepSpeed(Launcher):
    """DeepSpeed's launcher, started on every node as `deepspeed` itself would start it there over ssh."""

    suggested_engine = "deepspeed"
    needs_port = True

    def statements(self, request: Request) -> Sequence[Statement]:
        """Nothing: the run configuration and `deepspeed.settings` say all."""
        return ()

    def check(self, request: Request) -> None:
        """Refuses where DeepSpeed is missing."""
        check_deepspeed()

    def command(self, request: Request) -> tuple[str, ...]:
        """`python -m deepspeed.launcher.launch` with the GPUs of every node.

        `deepspeed` itself starts this on one node, but dies of a signal without passing it on, and needs ssh or a
        file of hosts for several.
        """
        place = request.place
        gpus = list(range(place.processes_per_node))
        nodes = json.dumps({f"node{number}": gpus for number in range(place.nodes)}, separators=(",", ":"))
        options = [
            f"--world_info={base64.urlsafe_b64encode(nodes.encode()).decode()}",
            f"--node_rank={place.node_rank}",
            f"--master_addr={place.host or '127.0.0.1'}",
            f"--master_port={place.port or DEFAULT_PORT}",
            "--no_local_rank",
            "--module",
        ]
        return (request.python, "-m", "deepspeed.launcher.launch", *options, *request.program)

    def variables(self, request: Request) -> dict[str, str]:
        """The kind of device, which the launcher itself asks DeepSpeed for, whoever steps."""
        return {"DS_ACCELERATOR": "cpu"} if request.on_cpu else {}
