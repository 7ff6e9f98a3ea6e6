"""Other packages' kernels, by stand-ins with their conventions: what they are given is what they expect."""

import sys
from types import ModuleType

import pytest
import torch
from torch import Tensor

from evaluation.attention_bench.contenders import Absent, Contender, sdpa
from evaluation.attention_bench.inputs import make_inputs
from evaluation.attention_bench.peers import peers
from evaluation.attention_bench.shapes import Shape
from evaluation.attention_bench.task import DECODE, TRAIN, Task
from parallax import parallax_reference
from parallax.attention.plla.reference import visible

CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)


def flash(q: Tensor, k: Tensor, v: Tensor, *, causal: bool, window_size: tuple[int, int]) -> tuple[Tensor, None]:
    """(B, T, H, D), and a window that has the query's own key beside it."""
    assert causal
    own = None if window_size == (-1, -1) else window_size[0] + 1
    mask = visible(q.shape[1], k.shape[1], own, q.device)
    return parallax_reference(q, torch.zeros_like(q), k, v, mask=mask), None


def fla(q: Tensor, r: Tensor, k: Tensor, v: Tensor, window_size: int | None) -> Tensor:
    return parallax_reference(q, r, k, v, window=window_size)


@pytest.fixture
def _packages(monkeypatch: pytest.MonkeyPatch) -> None:
    for module, names in {
        "flash_attn_interface": {"flash_attn_func": flash, "flash_attn_with_kvcache": flash},
        "fla.ops.parallax.parallel": {"parallel_parallax": fla},
        "fla.ops.parallax.decode": {"parallax_decode_one_step": fla},
    }.items():
        made = ModuleType(module)
        vars(made).update(names)
        for number in range(module.count(".")):
            parent = ".".join(module.split(".")[: number + 1])
            monkeypatch.setitem(sys.modules, parent, ModuleType(parent))
        monkeypatch.setitem(sys.modules, module, made)


def named(task: Task, name: str) -> Contender | Absent:
    return next(each for each in peers(task, CUDA, include_fa3=True) if each.name == name)


@pytest.mark.usefixtures("_packages")
@pytest.mark.parametrize(
    ("task", "shape"),
    [(TRAIN, Shape(2, 4, 2, 12, 8)), (TRAIN, Shape(1, 2, 2, 12, 8, 5)), (DECODE, Shape(2, 4, 2, 12, 8))],
    ids=str,
)
def test_packages_are_given_what_they_expect(task: Task, shape: Shape) -> None:
    inputs = make_inputs(shape, task.queries(shape), torch.float32, CPU, "positions")
    softmax, plla = named(task, "flash-attn 3"), named(task, "fla")
    assert isinstance(softmax, Contender)
    assert isinstance(plla, Contender)
    torch.testing.assert_close(softmax.attend(inputs), sdpa().attend(inputs))
    operands = (t.transpose(1, 2) for t in (inputs.q, inputs.r, inputs.k, inputs.v))
    expected = parallax_reference(*operands, window=shape.window).transpose(1, 2)
    torch.testing.assert_close(plla.attend(inputs), expected)


@pytest.mark.usefixtures("_packages")
def test_types_and_widths_that_a_package_does_not_take_are_refused() -> None:
    found = named(TRAIN, "fla")
    assert isinstance(found, Contender)
    assert found.refuses(Shape(1, 1, 1, 8, 64), torch.bfloat16) is None
    assert found.refuses(Shape(1, 1, 1, 8, 64), torch.float32) == "takes fp16 and bf16"
    assert "256 numbers" in str(found.refuses(Shape(1, 1, 1, 8, 512), torch.float16))


@pytest.mark.usefixtures("_packages")
def test_a_package_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "flash_attn_interface", None)
    found = named(TRAIN, "flash-attn 3")
    assert isinstance(found, Absent)
    assert found.reason.startswith("flash_attn_interface does not import: ModuleNotFoundError")


@pytest.mark.usefixtures("_packages")
def test_a_package_without_the_kernel_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fla.ops.parallax.decode", ModuleType("empty"))
    found = named(DECODE, "fla")
    assert isinstance(found, Absent)
    assert "has no parallax_decode_onestep or parallax_decode_one_step" in found.reason


def test_flash_attn_3_is_there_only_where_it_is_asked_for() -> None:
    assert [each.name for each in peers(TRAIN, CPU, include_fa3=False)] == ["flash-attn 2", "fla"]
    absent = peers(TRAIN, CPU, include_fa3=True)
    assert [isinstance(each, Absent) and "not for cpu" in each.reason for each in absent] == [True] * 3
