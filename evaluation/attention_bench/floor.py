from dataclasses import dataclass

from evaluation.attention_bench.bandwidth import Bandwidth
from evaluation.attention_bench.shapes import Shape
from evaluation.attention_bench.task import Family, Task
from parallax.metrics.peak import Peak


@dataclass(frozen=True)
class Rates:
    """What the hardware reaches."""

    peak: Peak
    """Of matrix products; its rate may be unknown."""
    bandwidth: Bandwidth


@dataclass(frozen=True)
class Floor:
    """The shortest time that the hardware allows, and what of it binds."""

    seconds: float
    bound: str
    """`memory` or `products`."""


def count_flops(task: Task, family: Family, shape: Shape) -> int:
    """Of the matrix products over the pairs that are seen: 2 B H D pairs for each, with scores kept."""
    products = family.forward_products + (family.backward_products if task.gradients else 0)
    pairs = shape.visible_pairs(task.queries(shape))
    return 2 * shape.batch * shape.heads * shape.width * pairs * products


def count_bytes(task: Task, family: Family, shape: Shape, number_bytes: int) -> int:
    """What has to be read and written once: operands and output; in training its gradient and theirs too.

    In decoding nearly all of it is keys and values.
    """
    queries = task.queries(shape)
    rows = len(family.operands) - 2
    asked = shape.heads * queries * (rows + 1)
    keys = 2 * shape.key_heads * shape.length
    once = shape.batch * shape.width * (asked + keys)
    return number_bytes * once * (2 if task.gradients else 1)


def floor_of(task: Task, family: Family, shape: Shape, number_bytes: int, rates: Rates) -> Floor:
    """The roofline: the longer of moving the bytes and multiplying the matrices, if nothing else took time."""
    moving = count_bytes(task, family, shape, number_bytes) / rates.bandwidth.bytes_per_second
    rate = rates.peak.flops_per_second
    multiplying = count_flops(task, family, shape) / rate if rate else 0.0
    return Floor(moving, "memory") if moving >= multiplying else Floor(multiplying, "products")
