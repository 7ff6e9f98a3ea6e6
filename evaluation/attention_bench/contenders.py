from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from evaluation.attention_bench.inputs import Inputs
from evaluation.attention_bench.shapes import Shape
from evaluation.attention_bench.task import PLLA, SOFTMAX, Attend, Family, Task
from parallax import parallax_decode, parallax_func
from parallax.attention.select import explain
from parallax.attention.softmax.sdpa import SdpaSoftmax
from parallax.errors import BackendError

_CHUNK = 128
_ALL_SCORES = 12
_CHUNK_SCORES = 8
"""Arrays of scores at a time, in fp32: scores, r.k, weights, and in the backward what autograd keeps of them."""


@dataclass(frozen=True)
class Contender:
    """One way to compute attention."""

    name: str
    family: Family
    attend: Attend
    scratch_bytes: Callable[[Shape, int], int] = lambda shape, queries: 0
    """An estimate of what it holds beside inputs and outputs, for a shape and so many queries."""
    refuses: Callable[[Shape, torch.dtype], str | None] = lambda shape, dtype: None
    """Why it does not take a shape in a type, or None."""


@dataclass(frozen=True)
class Absent:
    """A contender that cannot be had here, and why."""

    name: str
    family: Family
    reason: str


PEER = "sdpa"
"""What ratios are over."""


def plla_contenders(task: Task, device: torch.device, asked: Sequence[str]) -> list[Contender | Absent]:
    """This project's backends of PLLA; those that were asked for, or all.

    Raises:
        BackendError: one that was asked for is unknown, or cannot run on `device`.
    """
    states = dict(explain("plla", device))
    for name in asked:
        if name not in states:
            raise BackendError(f"--backend {name}: unknown for plla attention; known: {', '.join(states)}")
        if states[name] != "available":
            raise BackendError(f"--backend {name}: {states[name]}; leave it out, and the others are timed")
    found: list[Contender | Absent] = []
    for name, state in states.items():
        if asked and name not in asked:
            continue
        if state != "available":
            found.append(Absent(name, PLLA, state))
        elif name == "eager":
            found.append(Contender(name, PLLA, _functional(name), _eager_scratch))
        else:
            found.append(
                Contender(name, PLLA, _functional(name) if task.gradients else _decoding(name), _chunk_scratch)
            )
    return found


def sdpa() -> Contender:
    """PyTorch's fused attention: softmax attention of the same queries, keys and values."""
    return Contender(PEER, SOFTMAX, _sdpa)


def _functional(backend: str) -> Attend:
    def attend(given: Inputs) -> Tensor:
        return parallax_func(given.q, given.r, given.k, given.v, window=given.window, backend=backend)

    return attend


def _decoding(backend: str) -> Attend:
    def attend(given: Inputs) -> Tensor:
        operands = (t.transpose(1, 2) for t in (given.q, given.r, given.k, given.v))
        return parallax_decode(*operands, backend=backend).transpose(1, 2)

    return attend


def _sdpa(given: Inputs) -> Tensor:
    # As the backend of that name calls it, which copies no keys where their heads are shared.
    return SdpaSoftmax().attend(given.q, given.k, given.v, given.mask)


def _eager_scratch(shape: Shape, queries: int) -> int:
    heads = 4 * shape.batch * shape.heads * shape.length
    return heads * (_ALL_SCORES * queries + 2 * shape.width)


def _chunk_scratch(shape: Shape, queries: int) -> int:
    return 4 * shape.batch * shape.heads * shape.length * _CHUNK_SCORES * min(queries, _CHUNK)
