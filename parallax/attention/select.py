import difflib
import os
from dataclasses import dataclass

import torch

from parallax.attention.plla.backends import ChunkedPlla, EagerPlla
from parallax.attention.plla.triton_backend import TritonPlla
from parallax.attention.protocol import AttentionBackend
from parallax.attention.softmax.chunked import ChunkedSoftmax
from parallax.attention.softmax.eager import EagerSoftmax
from parallax.attention.softmax.flash import FlashSoftmax
from parallax.attention.softmax.sdpa import SdpaSoftmax
from parallax.errors import BackendError

OPERATORS: dict[str, tuple[AttentionBackend, ...]] = {
    "softmax": (FlashSoftmax(), ChunkedSoftmax(), SdpaSoftmax(), EagerSoftmax()),
    "plla": (TritonPlla(), ChunkedPlla(), EagerPlla()),
}
"""Operator name -> its backends, the one `auto` likes best first. The one place where they register."""


@dataclass(frozen=True)
class Choice:
    """The backend that was taken and why."""

    backend: AttentionBackend
    reason: str


def choose_backend(
    operator: str, requested: str, device: torch.device, setting: str = "runtime.attention_backend"
) -> Choice:
    """The backend for `requested` (`auto` or a name) on `device`.

    Where `auto` is asked for, the environment variable PARALLAX_<OPERATOR>_BACKEND may name one for the process.

    Args:
        operator: of `OPERATORS`.
        requested: `auto` or a backend's name.
        device: where the tensors will be.
        setting: what errors call that which holds `requested`.

    Raises:
        BackendError: a name that is unknown, or a backend that was asked for by name and cannot run here.
    """
    variable = f"PARALLAX_{operator.upper()}_BACKEND"
    if requested == "auto" and (named := os.environ.get(variable, "auto")) not in ("auto", ""):
        return Choice(_named(operator, named, device, variable), f"asked for by {variable}")
    if requested != "auto":
        return Choice(_named(operator, requested, device, setting), "asked for")
    backends = OPERATORS[operator]
    for backend in backends:
        if backend.unavailable(device) is None:
            return Choice(backend, f"first of {', '.join(b.name for b in backends)} on {device.type}")
    raise BackendError(f"no backend of {operator} attention runs on {device}")


def _named(operator: str, name: str, device: torch.device, setting: str) -> AttentionBackend:
    backends = {backend.name: backend for backend in OPERATORS[operator]}
    if name not in backends:
        near = difflib.get_close_matches(name, backends, 1)
        hint = f"did you mean {near[0]!r}?" if near else f"known: auto, {', '.join(backends)}"
        raise BackendError(f"{setting}={name!r} is unknown for {operator} attention; {hint}")
    if why_not := backends[name].unavailable(device):
        raise BackendError(f"{setting}={name}: {why_not}; use {setting}=auto")
    return backends[name]


def explain(operator: str, device: torch.device) -> list[tuple[str, str]]:
    """(backend, "available" or why not) for every backend of an operator, in `auto`'s order."""
    return [(b.name, b.unavailable(device) or "available") for b in OPERATORS[operator]]
