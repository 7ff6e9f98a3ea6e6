from dataclasses import dataclass
from typing import cast

import torch

from parallax.attention import select
from parallax.attention.plla.protocol import PllaBackend
from parallax.errors import BackendError
from parallax.runtime.device import resolve_device


def choose(requested: str, device: torch.device) -> PllaBackend:
    """The backend of a library's call, from the registry that models choose from; see `choose_backend`.

    Raises:
        BackendError: an unknown backend, or one that was asked for by name and cannot run on `device`.
    """
    name = _choose_name(requested, device)
    return next(backend for backend in backends_of_plla() if backend.name == name)


def backends_of_plla() -> tuple[PllaBackend, ...]:
    """The registry's, in `auto`'s order, as what they are."""
    return cast(tuple[PllaBackend, ...], select.OPERATORS["plla"])


# Trials and imports are nothing that a compiler could follow; their outcome is as constant as the device.
@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def _choose_name(requested: str, device: torch.device) -> str:
    return select.choose_backend("plla", requested, device, "backend").backend.name


@dataclass(frozen=True)
class Explanation:
    """Which backend `auto` takes, and what of each; as text, a line each."""

    device: str
    chosen: str | None
    """None: the environment asks for one that cannot be had."""
    reason: str
    backends: list[tuple[str, str]]
    """Name, and "available" or why not, the one that `auto` likes best first."""

    def __str__(self) -> str:
        rows = [f"  {name}: {why}" for name, why in self.backends]
        return "\n".join([f"plla on {self.device}: {self.chosen or 'none'}; {self.reason}", *rows])


def explain(device: torch.device | str = "auto") -> Explanation:
    """What `backend="auto"` takes on a device, `auto` being the first GPU, or the CPU without one, and why."""
    where = resolve_device("auto") if device == "auto" else torch.device(device)
    rows = select.explain("plla", where)
    try:
        choice = select.choose_backend("plla", "auto", where)
    except BackendError as error:
        return Explanation(str(where), None, str(error), rows)
    return Explanation(str(where), choice.backend.name, choice.reason, rows)
