import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy import stats

from evaluation.tasks.items import Item

_CONFIDENCE = 0.95
_TIE = 1e-6
"""Bits per byte (or this share of them) up to which two scores count as equal: they differ by rounding only."""


class Share(NamedTuple):
    """A share of items, with its 95 % Wilson interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Judged:
    """How a model chose."""

    item: Item
    bits_per_byte: tuple[float, ...]
    """Of each choice after the context."""
    credit: float
    """1 for the right choice, 0 for a wrong one; with n equally likely best ones 1/n if the right one is among
    them."""


@dataclass(frozen=True)
class Accuracy:
    """How often a model chose right."""

    suite: str
    kind: str
    items: int
    accuracy: Share
    chance: float
    """What guessing gets."""
    bits_per_byte: float
    """Of the right choices, over all their bytes."""


def judge(items: Sequence[Item], nats: Sequence[float]) -> list[Judged]:
    """What the choices' nats, item by item in one list, amount to: the fewest bits per byte win."""
    left = iter(nats)
    found = []
    for item in items:
        bits = tuple(next(left) / math.log(2) / len(choice.encode()) for choice in item.choices)
        best = min(bits)
        tied = [number for number, value in enumerate(bits) if value - best <= _TIE * max(best, 1.0)]
        found.append(Judged(item, bits, 1 / len(tied) if item.answer in tied else 0.0))
    return found


def summarise(judged: Sequence[Judged]) -> list[Accuracy]:
    """One line for each kind of item, in the order of their first appearance."""
    kinds = dict.fromkeys((one.item.suite, one.item.kind) for one in judged)
    found = []
    for suite, kind in kinds:
        own = [one for one in judged if (one.item.suite, one.item.kind) == (suite, kind)]
        sizes = [len(one.item.choices[one.item.answer].encode()) for one in own]
        bits = [one.bits_per_byte[one.item.answer] for one in own]
        found.append(
            Accuracy(
                suite,
                kind,
                len(own),
                wilson(sum(one.credit for one in own), len(own)),
                float(np.mean([1 / len(one.item.choices) for one in own])),
                float(np.average(bits, weights=sizes)),
            )
        )
    return found


def wilson(successes: float, trials: int) -> Share:
    """The share and its Wilson interval, (p + z²/2n ± z sqrt(p (1 - p)/n + z²/4n²)) / (1 + z²/n); halves count.

    Source: Wilson, "Probable inference, the law of succession, and statistical inference", 1927. SciPy's takes
    whole numbers only.
    """
    p, z = successes / trials, float(stats.norm.ppf((1 + _CONFIDENCE) / 2))
    spread = z * math.sqrt(p * (1 - p) / trials + z * z / (4 * trials**2))
    middle, scale = p + z * z / (2 * trials), 1 + z * z / trials
    return Share(p, (middle - spread) / scale, (middle + spread) / scale)
