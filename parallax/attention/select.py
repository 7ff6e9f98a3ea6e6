import difflib
from dataclasses import dataclass

import torch

from parallax.attention.plla.backends import ChunkedPlla, EagerPlla
from parallax.attention.protocol import AttentionBackend
from parallax.attention.softmax.chunked import ChunkedSoftmax
from parallax.attention.softmax.eager import EagerSoftmax
from parallax.attention.softmax.flash import FlashSoftmax
from parallax.attention.softmax.sdpa import SdpaSoftmax
from parallax.errors import BackendError

OPERATORS: dict[str, tuple[AttentionBackend, ...]] = {
    "softmax": (FlashSoftmax(), ChunkedSoftmax(), SdpaSoftmax(), EagerSoftmax()),
    "plla": (ChunkedPlla(), EagerPlla()),
}
"""Operator name -> its backends, the one `auto` likes best first. The one place where they register."""


@dataclass(frozen=True)
class Choice:
    """The backend that was taken and why."""

    backend: AttentionBackend
    reason: str


def choose_backend(operator: str, requested: str, device: torch.device) -> Choice:
    """The backend for `requested` (`auto` or a name) on `device`.

    Raises:
        BackendError: a name that is unknown, or a backend that was asked for by name and cannot run here.
    """
    backends = {backend.name: backend for backend in OPERATORS[operator]}
    if requested == "auto":
        for backend in backends.values():
            if backend.unavailable(device) is None:
                return Choice(backend, f"first of {', '.join(backends)} on {device.type}")
        raise BackendError(f"no backend of {operator} attention runs on {device}")
    if requested not in backends:
        near = difflib.get_close_matches(requested, backends, 1)
        hint = f"did you mean {near[0]!r}?" if near else f"known: auto, {', '.join(backends)}"
        raise BackendError(f"runtime.attention_backend={requested!r} is unknown for {operator} attention; {hint}")
    why_not = backends[requested].unavailable(device)
    if why_not:
        raise BackendError(f"runtime.attention_backend={requested}: {why_not}; use runtime.attention_backend=auto")
    return Choice(backends[requested], "asked for")


def explain(operator: str, device: torch.device) -> list[tuple[str, str]]:
    """(backend, "available" or why not) for every backend of an operator, in `auto`'s order."""
    return [(b.name, b.unavailable(device) or "available") for b in OPERATORS[operator]]
