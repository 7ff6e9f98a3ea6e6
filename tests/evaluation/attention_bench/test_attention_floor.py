"""The floor against counts made by hand, and against the table of the public kernel's card."""

import pytest

from evaluation.attention_bench.bandwidth import Bandwidth
from evaluation.attention_bench.floor import Rates, count_bytes, count_flops, floor_of
from evaluation.attention_bench.shapes import Shape
from evaluation.attention_bench.task import DECODE, PLLA, SOFTMAX, TRAIN
from parallax.metrics.peak import Peak

GROUPED = Shape(batch=2, heads=4, key_heads=2, length=3, width=8)
H200 = Rates(Peak(None, "not known"), Bandwidth(4.8e12, "stated"))


def test_products_by_hand() -> None:
    """A product of one pair and one head is 2 x 8 operations; three queries see 1 + 2 + 3 keys."""
    assert count_flops(DECODE, PLLA, GROUPED) == 2 * 4 * 16 * 3 * 3
    assert count_flops(DECODE, SOFTMAX, GROUPED) == 2 * 4 * 16 * 3 * 2
    assert count_flops(TRAIN, PLLA, GROUPED) == 2 * 4 * 16 * 6 * (3 + 8)
    assert count_flops(TRAIN, SOFTMAX, GROUPED) == 2 * 4 * 16 * 6 * (2 + 5)


def test_a_window_takes_products_away() -> None:
    windowed = Shape(batch=2, heads=4, key_heads=2, length=3, width=8, window=1)
    assert count_flops(TRAIN, PLLA, windowed) == 2 * 4 * 16 * 3 * 11


def test_bytes_by_hand() -> None:
    """Keys and values are 2 x 3 rows of 2 heads; a query's operands and its output one of 4 heads each."""
    keys = 2 * 3 * 2
    assert count_bytes(DECODE, PLLA, GROUPED, 2) == 2 * 2 * 8 * (keys + 3 * 4)
    assert count_bytes(DECODE, SOFTMAX, GROUPED, 4) == 4 * 2 * 8 * (keys + 2 * 4)
    assert count_bytes(TRAIN, PLLA, GROUPED, 2) == 2 * 2 * (2 * 8 * (keys + 3 * 3 * 4))


@pytest.mark.parametrize(
    ("batch", "length", "microseconds"), [(1, 512, 0.44), (1, 16384, 13.98), (32, 4096, 111.9), (32, 16384, 447.4)]
)
def test_keys_and_values_make_the_floor_of_decoding(batch: int, length: int, microseconds: float) -> None:
    floor = floor_of(DECODE, PLLA, Shape(batch, 8, 8, length, 128), 2, H200)
    assert floor.bound == "memory"
    assert floor.seconds * 1e6 == pytest.approx(microseconds, rel=1e-2)


def test_the_longer_of_both_is_the_floor() -> None:
    shape = Shape(4, 8, 8, 512, 64)
    flops = 2 * 32 * 64 * (512 * 513 // 2) * 11
    slow = Rates(Peak(100e9, "measured"), Bandwidth(10e9, "stated"))
    floor = floor_of(TRAIN, PLLA, shape, 4, slow)
    assert (floor.seconds, floor.bound) == (pytest.approx(flops / 100e9), "products")
    assert floor_of(TRAIN, PLLA, shape, 4, Rates(Peak(100e12, ""), Bandwidth(10e9, ""))).bound == "memory"
