import socket
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

from launch.place import Place
from parallax.errors import BackendError, JoinError


def count_gpus(environment: Mapping[str, str], devices: Path = Path("/dev")) -> int:
    """NVIDIA GPUs that processes started from here would see; torch is not asked, as loading it takes seconds."""
    visible = environment.get("CUDA_VISIBLE_DEVICES")
    here = sum(path.name.removeprefix("nvidia").isdecimal() for path in devices.glob("nvidia[0-9]*"))
    if visible is None:
        return here
    named = [name for name in visible.split(",") if name.strip() not in {"", "-1"}]
    return min(len(named), here)


def free_port() -> int:
    """A port that nobody listens at now."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def check_gpus(place: Place, gpus: int, device: str) -> None:
    """Refuses more processes than GPUs; a machine without any computes on its CPU.

    Raises:
        BackendError: this node has too few.
    """
    if device != "cpu" and 0 < gpus < place.processes_per_node:
        raise BackendError(
            f"--gpus-per-node {place.processes_per_node}: this node has {gpus} GPU(s); use --gpus-per-node "
            f"{gpus}, or runtime.device=cpu"
        )


def check_port(place: Place) -> None:
    """Looks on node 0 whether the port where the ranks shall meet is free.

    Raises:
        JoinError: somebody listens there.
    """
    if place.node_rank != 0 or not place.port:
        return
    try:
        socket.create_server(("", place.port)).close()
    except OSError as error:
        raise JoinError(
            f"--master {place.host}:{place.port}: the port is taken on this host ({error.strerror}); choose "
            f"another, for example {place.host}:{free_port()}"
        ) from None


def check_deepspeed() -> None:
    """Refuses where DeepSpeed is missing.

    Raises:
        BackendError: it is.
    """
    check_installed(
        "deepspeed", "pip install 'parallax[deepspeed]', or use --via torchrun and parallel.engine=native"
    )


def check_installed(package: str, way_out: str) -> None:
    """Refuses a launcher whose package is missing.

    Raises:
        BackendError: it is; the message has the way out.
    """
    if find_spec(package) is None:
        raise BackendError(f"{package} is not installed; {way_out}")
