"""Errors are found where they are made, and the definition of the softmax peers is PyTorch's attention."""

import math

import pytest
import torch
from torch import Tensor

from evaluation.attention_bench.accuracy import Errors, measure_errors, reference_bytes
from evaluation.attention_bench.contenders import Contender, plla_contenders, sdpa
from evaluation.attention_bench.inputs import Inputs, Layout, make_inputs
from evaluation.attention_bench.shapes import Shape
from evaluation.attention_bench.task import DECODE, PLLA, TRAIN, Task

CPU = torch.device("cpu")
SHAPE = Shape(2, 4, 2, 20, 8)


@pytest.fixture(autouse=True)
def _restored_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PARALLAX_PLLA_BACKEND", "auto")


def contenders(task: Task) -> list[Contender]:
    return [sdpa(), *(each for each in plla_contenders(task, CPU, []) if isinstance(each, Contender))]


def errors_of(task: Task, each: Contender, shape: Shape, layout: Layout = "heads") -> Errors:
    inputs = make_inputs(shape, task.queries(shape), torch.float32, CPU, layout)
    return measure_errors(task, each.family, task.step(each.attend, inputs, each.family)(), inputs, shape)


@pytest.mark.parametrize("layout", ["heads", "positions"])
@pytest.mark.parametrize("shape", [SHAPE, Shape(1, 3, 3, 33, 16), Shape(1, 4, 1, 30, 8, 7)], ids=str)
def test_every_contender_is_right_in_training(shape: Shape, layout: Layout) -> None:
    for each in contenders(TRAIN):
        errors = errors_of(TRAIN, each, shape, layout)
        assert errors.output is not None
        assert errors.gradients is not None
        assert max(errors.output, errors.gradients) < 5e-6, each.name


@pytest.mark.parametrize("layout", ["heads", "positions"])
@pytest.mark.parametrize("shape", [SHAPE, Shape(1, 3, 3, 33, 16)], ids=str)
def test_every_contender_is_right_in_decoding(shape: Shape, layout: Layout) -> None:
    found = {each.name: errors_of(DECODE, each, shape, layout) for each in contenders(DECODE)}
    assert {"sdpa", "chunked", "eager"} <= found.keys()
    for name, errors in found.items():
        assert errors.output is not None
        assert errors.output < 5e-6, name
        assert errors.gradients is None


def test_softmax_attention_is_not_plla() -> None:
    wrong = Contender("wrong", PLLA, sdpa().attend)
    errors = errors_of(DECODE, wrong, SHAPE)
    assert errors.output is not None
    assert errors.output > 0.1


@pytest.mark.parametrize("place", [0, -1], ids=["first key head", "last key head"])
@pytest.mark.parametrize(("which", "value"), [("output", 10.0), ("gradients", 10.0), ("gradients", math.nan)])
def test_one_wrong_number_is_seen(which: str, value: float, place: int) -> None:
    inputs = make_inputs(SHAPE, SHAPE.length, torch.float32, CPU, "heads")
    right = next(each for each in contenders(TRAIN) if each.name == "eager")
    found = TRAIN.step(right.attend, inputs, PLLA)()
    found[0 if which == "output" else 4][place, place, 3, 2] += value
    errors = measure_errors(TRAIN, PLLA, found, inputs, SHAPE)
    wrong = errors.output if which == "output" else errors.gradients
    kept = errors.gradients if which == "output" else errors.output
    assert kept is not None
    assert wrong is not None
    assert kept < 5e-6
    assert not wrong < 0.1


def test_of_many_key_heads_four_are_compared() -> None:
    eager = next(each for each in contenders(DECODE) if each.name == "eager")
    assert errors_of(DECODE, eager, Shape(3, 6, 3, 5, 8)).against == "fp64, 4 of 9 key heads"


def test_what_the_definition_needs_grows_with_the_scores() -> None:
    assert reference_bytes(DECODE, SHAPE) == 16 * 2 * 20 * 8
    assert reference_bytes(TRAIN, SHAPE) == 16 * 2 * 20 * 20 * 8
    assert reference_bytes(TRAIN, Shape(1, 1, 1, 4096, 64)) == 16 * 4096 * 4096 * 4


@pytest.mark.parametrize("layout", ["heads", "positions"])
def test_inputs_lie_as_asked(layout: Layout) -> None:
    inputs = make_inputs(SHAPE, 20, torch.bfloat16, CPU, layout)
    assert inputs.k.shape == (2, 2, 20, 8)
    assert inputs.q.shape == inputs.grad.shape == (2, 4, 20, 8)
    dense: Tensor = inputs.k if layout == "heads" else inputs.k.transpose(1, 2)
    assert dense.is_contiguous()
    assert inputs.k.float().square().mean(-1).sub(1).abs().max() < 2e-2
    assert isinstance(inputs.of_key_head(1, 1, torch.float64), Inputs)
