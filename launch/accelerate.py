from collections.abc import Sequence
from pathlib import Path

from launch.machine import check_installed
from launch.request import Launcher, Request
from parallax.config.accelerate import accelerate_statements, environment_of, read_file
from parallax.config.deepspeed_json import read_settings, settings_statements
from parallax.config.run import RunConfig
from parallax.config.statement import Statement, agreed
from parallax.errors import ConfigError, JoinError

_FILES = Path("configs") / "accelerate"
_CHECKOUT = Path(__file__).parents[1]


class Accelerate(Launcher):
    """accelerate's launcher with a configuration file; it starts and configures, and wraps nothing."""

    suggested_engine = "native"
    needs_port = False

    def statements(self, request: Request) -> Sequence[Statement]:
        """What the configuration file asks for."""
        path = _file(request)
        return accelerate_statements(environment_of(read_file(path)), path)

    def check(self, request: Request) -> None:
        """Refuses where accelerate is missing, or would start other processes than asked for.

        Raises:
            JoinError: its file is for GPUs, or for one process.
        """
        check_installed("accelerate", "pip install accelerate, or use --via torchrun")
        path, place = _file(request), request.place
        kind = str(read_file(path)["distributed_type"])
        if place.world_size == 1 or kind in {"FSDP", "DEEPSPEED"}:
            return
        if kind == "MULTI_GPU" and not request.on_cpu:
            return
        reason = "is for GPUs, and this node has none" if kind == "MULTI_GPU" else "starts one process only"
        raise JoinError(f"{path} (distributed_type {kind}) {reason}; this works: {request.torchrun_line}")

    def command(self, request: Request) -> tuple[str, ...]:
        """`accelerate launch` with the file; the numbers of the plan win over those in it."""
        place = request.place
        options = [
            *("--config_file", _file(request)),
            *("--num_processes", str(place.world_size)),
            *("--num_machines", str(place.nodes)),
            *("--machine_rank", str(place.node_rank)),
        ]
        if place.host:
            options += ["--main_process_ip", place.host]
        if place.world_size > 1:
            options += ["--main_process_port", str(place.port)]
        return (request.python, "-m", "accelerate.commands.launch", *options, "-m", *request.program)

    def variables(self, request: Request) -> dict[str, str]:
        """Nothing."""
        return {}


def _file(request: Request) -> str:
    if request.accelerate_file is not None:
        return request.accelerate_file
    path = _FILES / f"{_choose(request.config, request.place.world_size)}.yaml"
    return str(path if path.exists() else _CHECKOUT / path)


def _choose(config: RunConfig, world_size: int) -> str:
    """The name of the file that asks for what the run configuration does.

    Raises:
        ConfigError: there is none.
    """
    if config.parallel.engine == "deepspeed":
        section = config.deepspeed
        path = section.settings
        said = settings_statements(read_settings(path), path) if path else []
        stated = agreed(said, "deepspeed.zero_stage")
        stage = section.zero_stage if section.zero_stage is not None else stated.value if stated else 2
        if stage == 0:
            raise ConfigError(
                "no file in configs/accelerate is for deepspeed.zero_stage=0; give one with --accelerate-config, "
                "or use --via deepspeed"
            )
        return "zero3_offload" if section.offload_parameters and section.offload_optimizer else f"zero{stage}"
    if world_size == 1:
        return "single"
    return "ddp" if config.parallel.dp_shard == 1 else "fsdp2"
