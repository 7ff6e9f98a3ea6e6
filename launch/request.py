from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from launch.place import Place
from parallax.config.run import RunConfig
from parallax.config.statement import Statement

PROGRAM = "parallax.train"


@dataclass(frozen=True)
class Request:
    """What a person asked `python -m launch` for, and the machine that was found."""

    config: RunConfig
    arguments: tuple[str, ...]
    """Of the program: the configuration file and the overrides, as given."""
    place: Place
    python: str
    """The interpreter of every process."""
    gpus: int = 0
    """GPUs of this node; 0: it computes on its CPU."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """The variables here, which processes inherit."""
    accelerate_file: str | None = None
    """accelerate's configuration file; None: the one that fits the run configuration."""

    @property
    def on_cpu(self) -> bool:
        """Whether the processes will compute on the CPU, as far as can be seen from here."""
        return self.gpus == 0 or self.config.runtime.device == "cpu"

    @property
    def program(self) -> tuple[str, ...]:
        """The module that every process runs, and its arguments."""
        return (PROGRAM, *self.arguments)

    @property
    def torchrun_line(self) -> str:
        """A command that starts the same with torchrun, for messages."""
        given = " ".join(self.arguments)
        return f"python -m launch {given} --via torchrun --gpus-per-node {self.place.processes_per_node}"


class Launcher(Protocol):
    """What starts the processes of a plan. A new one is a class like this and a line in `launch/registry.py`."""

    @property
    def suggested_engine(self) -> str:
        """What `parallel.engine=auto` means under it."""

    @property
    def needs_port(self) -> bool:
        """Whether it must be told a free port on one node, as it finds none by itself."""

    def statements(self, request: Request) -> Sequence[Statement]:
        """What it will ask of the run, beside the run's configuration."""

    def check(self, request: Request) -> None:
        """Refuses what it cannot start here. Raises a ParallaxError."""

    def command(self, request: Request) -> tuple[str, ...]:
        """What this node starts."""

    def variables(self, request: Request) -> dict[str, str]:
        """What the command needs in its environment, beside what is inherited."""
