from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from evaluation.gpu_proof.rows import Row, failed, impossible
from evaluation.gpu_proof.setting import Setting
from evaluation.gpu_proof.small_model import relative_error
from parallax.attention.protocol import AttentionBackend
from parallax.attention.select import OPERATORS
from parallax.attention.softmax.eager import EagerSoftmax
from parallax.model.documents import document_mask

LIMITS = {
    torch.float32: (1e-5, 1e-5),
    torch.bfloat16: (1e-2, 2e-2),
    torch.float16: (2e-3, 4e-3),
}
"""Of outputs and of gradients, relative to eager in float64 on the same rounded inputs."""

_KERNELS = {
    "flash": SDPBackend.FLASH_ATTENTION,
    "memory-efficient": SDPBackend.EFFICIENT_ATTENTION,
    "cudnn": SDPBackend.CUDNN_ATTENTION,
}
_CASES = {
    "causal": (False, False),
    "causal, grouped heads": (True, False),
    "documents, grouped heads": (True, True),
}


class Problem(NamedTuple):
    """Inputs of one attention."""

    q: Tensor
    k: Tensor
    v: Tensor
    mask: Tensor | None
    weights: Tensor
    """Of the outputs in the sum whose gradients are compared."""

    def to(self, dtype: torch.dtype) -> "Problem":
        """In another type; the mask stays."""
        q, k, v, weights = (t.to(dtype) for t in (self.q, self.k, self.v, self.weights))
        return Problem(q, k, v, self.mask, weights)


def check_attention(setting: Setting) -> Iterator[Row]:
    """Every backend that runs here, and every kernel behind PyTorch's, against the eager definition."""
    backends = {backend.name: backend for backend in OPERATORS["softmax"] if backend.name != "eager"}
    for name, backend in backends.items():
        why_not = backend.unavailable(setting.device)
        if why_not is not None:
            yield impossible(name, why_not)
            continue
        yield from _compare_all(setting, name, backend, None)
        if name == "sdpa" and setting.on_gpu:
            for kernel, choice in _KERNELS.items():
                yield from _compare_all(setting, f"sdpa, {kernel} kernel", backend, choice)


def _compare_all(
    setting: Setting, name: str, backend: AttentionBackend, kernel: SDPBackend | None
) -> Iterator[Row]:
    for case, (grouped, masked) in _CASES.items():
        problem = make_problem(setting, grouped=grouped, masked=masked)
        for dtype in LIMITS:
            what = f"{name}: {case}, {str(dtype).removeprefix('torch.')}"
            yield compare(what, backend, problem.to(dtype), kernel)


def compare(what: str, backend: AttentionBackend, problem: Problem, kernel: SDPBackend | None = None) -> Row:
    """A backend's outputs and gradients against those of eager in float64, with eager's own error beside."""
    only: AbstractContextManager[None] = nullcontext() if kernel is None else sdpa_kernel(kernel)
    exact = _run(EagerSoftmax(), problem.to(torch.float64))
    try:
        with only:
            found = _run(backend, problem)
    except RuntimeError as error:
        if kernel is not None and "No available kernel" in str(error):
            return impossible(what, "PyTorch has no such kernel for these inputs on this device")
        return failed(what, f"{type(error).__name__}: {error}")
    return judge(what, found, exact, _run(EagerSoftmax(), problem), problem.q.dtype)


def judge(what: str, found: list[Tensor], exact: list[Tensor], eager: list[Tensor], dtype: torch.dtype) -> Row:
    """Outputs and, behind them, gradients against exact ones, with the errors of eager in `dtype` beside."""
    limits = LIMITS[dtype]
    measured = errors(found, exact)
    passes = all(error <= limit for error, limit in zip(measured, limits, strict=True))
    texts = [
        ", gradients ".join(f"{error:.1e}" for error in shown[: len(found)])
        for shown in (measured, errors(eager, exact))
    ]
    bound = ", ".join(f"{limit:.0e}" for limit in limits[: len(found)])
    return Row(what, texts[0], f"<= {bound}", "pass" if passes else "fail", f"eager itself: {texts[1]}")


def errors(found: list[Tensor], exact: list[Tensor]) -> tuple[float, float]:
    """The relative error of the outputs, and the worst of the gradients; 0 where there are none."""
    each = [relative_error(mine, true) for mine, true in zip(found, exact, strict=True)]
    worst = max(each[1:], key=lambda error: (error != error, error), default=0.0)
    return each[0], worst


def make_problem(setting: Setting, *, grouped: bool, masked: bool) -> Problem:
    """Two rows; with a mask, documents that begin at other places in each."""
    heads, length, width = (4, 96, 32) if setting.quick else (8, 512, 64)
    generator = torch.Generator().manual_seed(0)

    def draw(count: int) -> Tensor:
        numbers = torch.randn(2, count, length, width, generator=generator, dtype=torch.float64)
        return numbers.to(setting.device)

    kv_heads = heads // 2 if grouped else heads
    documents = (torch.rand(2, length, generator=generator) < 0.03).cumsum(1).to(setting.device)
    mask = document_mask(documents) if masked else None
    return Problem(draw(heads), draw(kv_heads), draw(kv_heads), mask, draw(heads))


def _run(backend: AttentionBackend, problem: Problem) -> list[Tensor]:
    """Output and the gradients of q, k and v."""
    inputs = [t.detach().requires_grad_() for t in problem[:3]]
    output = backend.attend(inputs[0], inputs[1], inputs[2], problem.mask)
    return [output, *torch.autograd.grad(output, inputs, problem.weights)]
