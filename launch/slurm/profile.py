import difflib
from pathlib import Path
from typing import Annotated

from pydantic import Field

from parallax.config.load import check_settings
from parallax.config.section import PositiveInt, Section
from parallax.config.yaml_strict import parse_yaml
from parallax.errors import ConfigError

_FOLDER = Path("slurm") / "profiles"
_CHECKOUT = Path(__file__).parents[2]
_Variable = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]


class Profile(Section):
    """What one site's jobs have in common. What the command line says wins."""

    partition: str | None = None
    """Partition (queue); null: the cluster's default."""
    account: str | None = None
    """Account that pays."""
    qos: str | None = None
    """Quality of service."""
    constraint: str | None = None
    """Features that nodes must have."""
    time: str | int | None = None
    """Time limit, as --time takes it."""
    mem: str | None = None
    """Memory of each node, such as 64G; null: the cluster's default."""
    mail: str | None = None
    """Where Slurm writes to when a job ends, fails or is requeued."""
    gpus_per_node: PositiveInt | None = None
    """GPUs to ask of each node unless --gpus-per-node says it; one rank runs on each."""
    gpu_type: str | None = None
    """Kind of GPU, where nodes have several: a100 asks for gpu:a100:N."""
    cpus_per_rank: PositiveInt = 2
    """Processors for each rank."""
    modules: tuple[str, ...] = Field(default=(), strict=False)
    """What `module load` is told."""
    activate: str | None = None
    """A line of shell that makes the environment, such as `source ~/venv/bin/activate`."""
    python: str | None = None
    """Interpreter on the nodes; null: the one that submits, or `python` in a container or after `activate`."""
    container: str | None = None
    """Command before the interpreter's, such as `apptainer exec --nv image.sif`."""
    network_interface: str | None = None
    """Network between nodes, for NCCL and gloo: a name such as ib0."""
    environment: dict[_Variable, str | int] = Field(default_factory=dict)
    """Variables of every rank."""
    sbatch: tuple[str, ...] = Field(default=(), strict=False)
    """Further options of sbatch, each as one text, such as --exclusive."""


def load_profile(name: str) -> Profile:
    """Reads `slurm/profiles/NAME.yaml`, or the file that is named by a path ending in .yaml.

    Raises:
        ConfigError: there is none, or it has an unknown key or a wrong value; the nearest known one is named.
    """
    path = Path(name) if name.endswith((".yaml", ".yml")) else _find(name)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"--profile {name}: {path} cannot be read: {_reason(error)}") from None
    raw = parse_yaml(text, source=str(path))
    if raw is None:
        return Profile()
    if not isinstance(raw, dict):
        raise ConfigError(f"{path}: expected keys such as partition, found {raw!r}")
    return check_settings(Profile, raw, str(path), _nearest_key)


def _find(name: str) -> Path:
    folders = [_FOLDER, _CHECKOUT / _FOLDER]
    for folder in folders:
        if (folder / f"{name}.yaml").exists():
            return folder / f"{name}.yaml"
    known = sorted({path.stem for folder in folders for path in folder.glob("*.yaml")})
    near = difflib.get_close_matches(name, known, 1, cutoff=0.4)
    hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(known) or 'none'}"
    raise ConfigError(f"--profile {name}: no such file in {_FOLDER}; {hint}")


def _reason(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


def _nearest_key(name: str) -> str:
    near = difflib.get_close_matches(name, Profile.model_fields, 1, cutoff=0.4)
    return f"did you mean {near[0]!r}?" if near else f"known here: {', '.join(Profile.model_fields)}"
