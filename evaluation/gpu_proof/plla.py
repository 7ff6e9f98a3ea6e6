from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from evaluation.gpu_proof.attention import LIMITS, judge
from evaluation.gpu_proof.rows import Row, failed, impossible
from evaluation.gpu_proof.setting import Setting
from parallax.attention.plla.backends import EagerPlla
from parallax.attention.plla.choice import backends_of_plla
from parallax.attention.plla.protocol import PllaBackend
from parallax.model.documents import document_mask

Call = Callable[[PllaBackend, list[Tensor]], Tensor]
"""A backend and q, r (B, H, T, D), k, v (B, G, S, D), or one query in a cache's layout, to the output."""


class Case(NamedTuple):
    """One way of asking for PLLA."""

    call: Call
    tensors: list[Tensor]
    """q, r, k, v in float64."""
    learns: bool = True
    """Whether gradients are compared as well."""


def check_plla(setting: Setting) -> Iterator[Row]:
    """Every backend of PLLA that runs here against the definition in float64: outputs, gradients, decoding."""
    for backend in backends_of_plla():
        if backend.name == "eager":
            continue
        why_not = backend.unavailable(setting.device)
        if why_not is not None:
            yield impossible(backend.name, why_not)
            continue
        for what, case in make_cases(setting).items():
            for dtype in LIMITS:
                yield compare(f"{backend.name}: {what}, {str(dtype).removeprefix('torch.')}", backend, case, dtype)


def make_cases(setting: Setting) -> dict[str, Case]:
    """What a model asks for, then what a library's user can, then decoding."""
    heads, length, width = (4, 96, 32) if setting.quick else (8, 512, 64)
    generator = torch.Generator().manual_seed(0)

    def draw(heads: int, length: int) -> Tensor:
        numbers = torch.randn(2, heads, length, width, generator=generator, dtype=torch.float64)
        return numbers.to(setting.device)

    def tensors(queries: int = length, kv_heads: int = heads // 2) -> list[Tensor]:
        k, v = draw(kv_heads, length), draw(kv_heads, length)
        return [draw(heads, queries), draw(heads, queries) / width**0.5, k, v]

    documents = (torch.rand(2, length, generator=generator) < 0.03).cumsum(1).to(setting.device)
    mask = document_mask(documents)
    shared = tensors()
    shared[2] += 16
    return {
        "causal": Case(_as_model, tensors(kv_heads=heads)),
        "causal, grouped heads": Case(_as_model, tensors()),
        "documents, grouped heads": Case(lambda backend, given: _as_model(backend, given, mask), tensors()),
        "window, fewer queries": Case(lambda backend, given: _in_window(backend, given, 33), tensors(length // 2)),
        "keys with a mean of 16": Case(_as_model, shared),
        "decoding": Case(_decode, [t.transpose(1, 2).contiguous() for t in tensors(1)], learns=False),
    }


def _as_model(backend: PllaBackend, given: list[Tensor], mask: Tensor | None = None) -> Tensor:
    q, r, k, v = given
    return backend.attend(torch.cat((r, q), dim=1), k, v, mask)


def _in_window(backend: PllaBackend, given: list[Tensor], window: int) -> Tensor:
    q, r, k, v = given
    return backend.compute(q, r, k, v, q.shape[-1] ** -0.5, window)


def _decode(backend: PllaBackend, given: list[Tensor]) -> Tensor:
    q, r, k, v = given
    return backend.decode(q, r, k, v, q.shape[-1] ** -0.5)


def compare(what: str, backend: PllaBackend, case: Case, dtype: torch.dtype) -> Row:
    """A backend's output and gradients against the definition's in float64 on the same rounded inputs."""
    rounded = [t.to(dtype) for t in case.tensors]
    exact = _run(EagerPlla(), case, [t.double() for t in rounded])
    try:
        found = _run(backend, case, rounded)
    except RuntimeError as error:
        return failed(what, f"{type(error).__name__}: {error}")
    return judge(what, found, exact, _run(EagerPlla(), case, rounded), dtype)


def _run(backend: PllaBackend, case: Case, given: list[Tensor]) -> list[Tensor]:
    leaves = [t.detach().clone().requires_grad_(case.learns) for t in given]
    output = case.call(backend, leaves)
    if not case.learns:
        return [output]
    source = torch.Generator().manual_seed(1)
    weights = torch.randn(output.shape, generator=source, dtype=torch.float64).to(output.device, output.dtype)
    return [output, *torch.autograd.grad(output, leaves, weights)]
