"""The public grid, the ways to write a shape, and the pairs that are seen."""

import pytest
import torch

from evaluation.attention_bench.shapes import Shape, parse_shape, public_grid
from parallax.attention.plla.reference import visible
from parallax.errors import ConfigError


def test_the_public_grid_has_216_shapes_and_its_corners() -> None:
    grid = public_grid()
    assert len(grid) == len(set(grid)) == 216
    assert {(shape.batch, shape.heads == shape.key_heads, shape.window) for shape in grid} == {(1, True, None)}
    assert (grid[0].heads, grid[0].length, grid[0].width) == (1, 128, 64)
    assert (grid[-1].heads, grid[-1].length, grid[-1].width) == (2048, 32768, 128)


@pytest.mark.parametrize(
    ("text", "shape"),
    [
        ("4,8,512,64", Shape(4, 8, 8, 512, 64)),
        ("4,8,2,512,64", Shape(4, 8, 2, 512, 64)),
        ("2,8,2,1024,128,256", Shape(2, 8, 2, 1024, 128, 256)),
        ("2,8,2,1024,128,-1", Shape(2, 8, 2, 1024, 128)),
    ],
)
def test_shapes_are_read_as_they_are_written(text: str, shape: Shape) -> None:
    assert parse_shape(text) == shape


def test_the_public_script_puts_the_length_before_the_heads() -> None:
    assert parse_shape("1,4096,8,128", "BLHD") == parse_shape("1,8,4096,128")


@pytest.mark.parametrize(
    ("text", "order", "why"),
    [
        ("4,8,512", "BHLD", "3 numbers"),
        ("4,8,2,512,64", "BLHD", "5 numbers"),
        ("4,8,x,64", "BHLD", "not integers"),
        ("4,8,0,64", "BHLD", "1 or more"),
        ("4,8,2,512,64,0", "BHLD", "W may be -1"),
        ("4,8,3,512,64", "BHLD", "3 heads of keys do not divide 8 heads"),
    ],
)
def test_a_shape_that_is_none_is_refused_with_what_was_expected(text: str, order: str, why: str) -> None:
    with pytest.raises(ConfigError, match=f"--shape {text}: .*{why}.*expected B,.*such as 1,8,4096,128"):
        parse_shape(text, order)


def test_a_shape_names_its_sizes() -> None:
    assert str(Shape(4, 8, 8, 512, 64)) == "B4 H8 L512 D64"
    assert str(Shape(1, 8, 2, 512, 64, 32)) == "B1 H8/2 L512 D64 W32"


@pytest.mark.parametrize("window", [None, 1, 4, 9, 10, 99])
@pytest.mark.parametrize("queries", [1, 3, 10])
def test_pairs_are_those_that_the_definition_sees(queries: int, window: int | None) -> None:
    seen = visible(queries, 10, window, torch.device("cpu"))
    assert Shape(1, 1, 1, 10, 8, window).visible_pairs(queries) == int(seen.sum())
