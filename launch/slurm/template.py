import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from parallax.errors import ConfigError

_CHECKOUT = Path(__file__).parents[2]
_TEMPLATE = Path("slurm") / "train.sbatch"
_SIGNAL = re.compile(r"^#SBATCH --signal=B?:?\w+@(\d+)", re.MULTILINE)
# What the script does with them is its own affair; that it knows them at all can be looked for.
_VARIABLES = ("PARALLAX_PYTHON", "PARALLAX_NPROC", "PARALLAX_RUN", '"$@"')


@dataclass(frozen=True)
class Template:
    """A batch script with two blocks to fill in: resources and site."""

    path: str
    lines: tuple[str, ...]

    @property
    def signal_seconds(self) -> int:
        """How long before its end the job is told to save; 0: it is not told."""
        match = _SIGNAL.search("\n".join(self.lines))
        return int(match.group(1)) if match else 0

    def fill(self, resources: Sequence[str], site: Sequence[str]) -> str:
        """The script with both blocks replaced; their marks stay."""
        lines = list(self.lines)
        for mark, block in (("site", site), ("resources", resources)):
            first, last = _find(self, f"# >>> {mark}"), _find(self, f"# <<< {mark}")
            lines[first + 1 : last] = block
        return "\n".join(lines) + "\n"


def read_template(path: str | None) -> Template:
    """Reads the given template; None: `slurm/train.sbatch` here, or of the checkout.

    Raises:
        ConfigError: it cannot be read, or lacks a mark or a variable that the launcher fills in.
    """
    file = Path(path) if path is not None else _TEMPLATE if _TEMPLATE.exists() else _CHECKOUT / _TEMPLATE
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or error
        raise ConfigError(f"template {file} cannot be read: {reason}; name one with --template") from None
    template = Template(str(file), tuple(lines))
    marks = [_find(template, f"# {way} {mark}") for mark in ("resources", "site") for way in (">>>", "<<<")]
    if marks != sorted(marks):
        raise ConfigError(f"template {file}: the blocks resources and site are out of order")
    text = "\n".join(lines)
    for variable in _VARIABLES:
        if variable not in text:
            raise ConfigError(f"template {file} does not use {variable}; see slurm/train.sbatch")
    return template


def _find(template: Template, mark: str) -> int:
    found = [number for number, line in enumerate(template.lines) if line.strip() == mark]
    if len(found) != 1:
        times = "no line" if not found else f"{len(found)} lines"
        raise ConfigError(f"template {template.path} has {times} {mark!r}; expected one, as in slurm/train.sbatch")
    return found[0]
