from dataclasses import dataclass
from functools import reduce

import torch
from torch import Tensor

from evaluation.attention_bench.inputs import Inputs
from evaluation.attention_bench.shapes import Shape
from evaluation.attention_bench.task import PLLA, Attend, Family, Task
from parallax import parallax_reference

_MOST_PIECES = 4
_FP64_SCORES = 1 << 23
_SCORES_AT_A_TIME = 16
"""Arrays that the definition and autograd hold, estimated on the high side."""


@dataclass(frozen=True)
class Errors:
    """Against the definition: the largest difference, over the largest value of what is compared."""

    output: float | None
    """None: there is no room for the definition."""
    gradients: float | None
    """The worst of the operands'; None: there are none, or the same."""
    against: str
    """What it was compared with, and how much of it: `fp64, 4 of 32 key heads`."""


def reference_bytes(task: Task, shape: Shape) -> int:
    """What `measure_errors` needs, about."""
    numbers = _piece_scores(task, shape)
    return _SCORES_AT_A_TIME * numbers * (8 if numbers <= _FP64_SCORES else 4)


def measure_errors(task: Task, family: Family, found: list[Tensor], inputs: Inputs, shape: Shape) -> Errors:
    """How far the outcome of a contender's step is from the definition on the same (rounded) inputs.

    The definition runs in fp64 on at most four key heads spread over the batch; where the scores of one are over
    eight million, in fp32 on one. Heads are attended apart, so what the others hold has no part in these.
    """
    cheap = _piece_scores(task, shape) <= _FP64_SCORES
    wide = torch.float64 if cheap else torch.float32
    names = ["o", *family.operands] if task.gradients else ["o"]
    worst = dict.fromkeys(names, 0.0)
    largest = dict.fromkeys(names, 0.0)
    pieces = _pieces(shape, _MOST_PIECES if cheap else 1)
    for row, head in pieces:
        exact = task.step(_definition(family), inputs.of_key_head(row, head, wide), family)()
        group = shape.heads // shape.key_heads
        for name, mine, true in zip(names, found, exact, strict=True):
            heads = slice(head, head + 1) if name in "kv" else slice(head * group, (head + 1) * group)
            off = (mine[row : row + 1, heads].to(wide) - true).abs()
            worst[name] = _larger(worst[name], off.max().item())
            largest[name] = max(largest[name], true.abs().max().item())
    relative = {name: worst[name] / max(largest[name], torch.finfo(wide).tiny) for name in names}
    name = str(wide).removeprefix("torch.float")
    against = f"fp{name}, {len(pieces)} of {shape.batch * shape.key_heads} key heads"
    gradients = [relative[name] for name in names[1:]]
    return Errors(relative["o"], reduce(_larger, gradients) if gradients else None, against)


def _larger(a: float, b: float) -> float:
    """NaN, where either is."""
    return b if b != b or b > a else a


def _piece_scores(task: Task, shape: Shape) -> int:
    return shape.heads // shape.key_heads * task.queries(shape) * shape.length


def _pieces(shape: Shape, most: int) -> list[tuple[int, int]]:
    """Rows and key heads, spread evenly from the first on."""
    count = shape.batch * shape.key_heads
    few = min(count, most)
    places = {round(number * (count - 1) / max(few - 1, 1)) for number in range(few)}
    return [divmod(place, shape.key_heads) for place in sorted(places)]


def _definition(family: Family) -> Attend:
    def attend(given: Inputs) -> Tensor:
        r = given.r if family is PLLA else torch.zeros_like(given.q)
        operands = (t.transpose(1, 2) for t in (given.q, r, given.k, given.v))
        return parallax_reference(*operands, window=given.window).transpose(1, 2)

    return attend
