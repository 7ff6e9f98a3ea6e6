from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from evaluation.attention_bench.inputs import Layout
from evaluation.attention_bench.shapes import Shape

Outcome = Literal["measured", "skipped", "failed", "unavailable"]


@dataclass(frozen=True)
class Setting:
    """What all rows of a command have in common."""

    task: str
    """decode or train."""
    device: str
    """With the number of threads, or the card's name."""
    dtype: str
    """fp32, bf16 or fp16."""
    layout: Layout
    """See `Layout`."""
    warmup: int
    iters: int
    trials: int


@dataclass(frozen=True)
class Row:
    """One contender on one shape, with warm or with cold caches; a line of the CSV. Times are of a call."""

    task: str
    device: str
    dtype: str
    layout: Layout
    warmup: int
    iters: int
    trials: int
    batch: int
    heads: int
    key_heads: int
    length: int
    width: int
    contender: str
    family: str
    cache: str
    """warm or cold; empty where nothing was timed."""
    outcome: Outcome
    window: int | None = None
    reason: str = ""
    """Why nothing was measured."""
    timer: str = ""
    first_seconds: float | None = None
    """Of the first call, compiling included."""
    q05_seconds: float | None = None
    q50_seconds: float | None = None
    q95_seconds: float | None = None
    samples: int = 0
    ratio_to_sdpa: float | None = None
    """Its time over that of PyTorch's softmax attention: the median of the rounds' ratios."""
    error: float | None = None
    """Of the output, relative; see `Errors`."""
    gradient_error: float | None = None
    against: str = ""
    """What the errors are against, or why there are none."""
    floor_seconds: float | None = None
    floor_bound: str = ""

    @property
    def shape(self) -> Shape:
        """Of the attention."""
        return Shape(self.batch, self.heads, self.key_heads, self.length, self.width, self.window)

    @property
    def setting(self) -> Setting:
        """Of the command."""
        return Setting(self.task, self.device, self.dtype, self.layout, self.warmup, self.iters, self.trials)

    @property
    def over_floor(self) -> float | None:
        """The median over the floor."""
        if self.q50_seconds is None or not self.floor_seconds:
            return None
        return self.q50_seconds / self.floor_seconds


def rows_of(rows: Sequence[Row], setting: Setting, shape: Shape) -> list[Row]:
    """What was said last of each contender on a shape: warm and cold, or why it was not timed."""
    found: dict[tuple[str, str], Row] = {}
    for row in rows:
        if row.setting != setting or row.shape != shape:
            continue
        for contender, cache in list(found):
            if contender == row.contender and not (cache and row.cache):
                del found[contender, cache]
        found[row.contender, row.cache] = row
    return list(found.values())
