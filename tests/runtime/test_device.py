"""What device and precision a name stands for, on machines that are not this one."""

from types import SimpleNamespace

import pytest
import torch

from parallax.errors import BackendError
from parallax.runtime import device as device_module
from parallax.runtime.device import cpu_has_bf16, resolve_device, resolve_precision

CUDA = torch.device("cuda", 0)
CPU = torch.device("cpu")


@pytest.fixture
def pretend_gpu(monkeypatch: pytest.MonkeyPatch):
    """Calling it makes torch see CUDA cards of the given capability and memory."""

    def pretend(capability: tuple[int, int], gigabytes: float, *, count: int = 1) -> None:
        memory = SimpleNamespace(total_memory=int(gigabytes * 2**30))
        monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
        monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: memory)
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Imagined Card")

    return pretend


@pytest.mark.parametrize(
    ("capability", "gigabytes", "expected"),
    [
        pytest.param((7, 5), 15, "fp16", id="T4"),
        pytest.param((7, 0), 32, "fp16", id="V100"),
        pytest.param((8, 6), 5.8, "fp16", id="RTX 3050 6GB"),
        pytest.param((8, 6), 7.6, "bf16", id="RTX 3050 8GB"),
        pytest.param((8, 0), 40, "bf16", id="A100"),
        pytest.param((9, 0), 80, "bf16", id="H100"),
        pytest.param((12, 0), 32, "bf16", id="RTX 5090"),
    ],
)
def test_auto_precision_suits_the_card(pretend_gpu, capability, gigabytes, expected) -> None:
    pretend_gpu(capability, gigabytes)
    precision = resolve_precision("auto", CUDA)
    assert precision.name == expected
    assert precision.autocast_dtype == {"fp16": torch.float16, "bf16": torch.bfloat16}[expected]
    assert precision.scales_loss == (expected == "fp16")


def test_the_reason_names_the_cards_generation_or_its_memory(pretend_gpu) -> None:
    pretend_gpu((7, 5), 15)
    assert "sm_75" in resolve_precision("auto", CUDA).reason
    pretend_gpu((8, 6), 5.8)
    assert "7 GiB" in resolve_precision("auto", CUDA).reason
    assert resolve_precision("fp32", CUDA).reason == "asked for"


@pytest.mark.parametrize(("has_bf16", "expected"), [(True, "bf16"), (False, "fp32")])
def test_auto_precision_on_a_cpu_is_bf16_where_the_hardware_has_it(
    monkeypatch: pytest.MonkeyPatch, has_bf16: bool, expected: str
) -> None:
    monkeypatch.setattr(device_module, "cpu_has_bf16", lambda: has_bf16)
    assert resolve_precision("auto", CPU).name == expected


def test_this_cpu_says_whether_it_has_bf16() -> None:
    assert isinstance(cpu_has_bf16(), bool)


@pytest.mark.parametrize(
    ("name", "dtype", "scales"),
    [("fp32", None, False), ("bf16", torch.bfloat16, False), ("fp16", torch.float16, True)],
)
def test_a_precision_asked_for_by_name_is_taken(name: str, dtype: torch.dtype | None, scales: bool) -> None:
    precision = resolve_precision(name, CPU)
    assert (precision.name, precision.autocast_dtype, precision.scales_loss) == (name, dtype, scales)


def test_bf16_asked_for_by_name_is_refused_on_a_card_without_it(pretend_gpu) -> None:
    pretend_gpu((7, 5), 15)
    with pytest.raises(BackendError) as caught:
        resolve_precision("bf16", CUDA)
    expected = "train.precision=bf16: Imagined Card has no bf16 instructions; use train.precision=fp16"
    assert str(caught.value) == expected


def test_bf16_asked_for_by_name_is_taken_on_a_small_card_that_has_it(pretend_gpu) -> None:
    pretend_gpu((8, 6), 5.8)
    assert resolve_precision("bf16", CUDA).name == "bf16"


def test_auto_device_is_the_first_card_or_else_the_cpu(pretend_gpu) -> None:
    pretend_gpu((8, 0), 40, count=2)
    assert resolve_device("auto") == CUDA
    pretend_gpu((8, 0), 40, count=0)
    assert resolve_device("auto") == CPU


def test_a_device_asked_for_by_name_is_taken(pretend_gpu) -> None:
    pretend_gpu((8, 0), 40, count=2)
    assert resolve_device("cpu") == CPU
    assert resolve_device("cuda") == CUDA
    assert resolve_device("cuda:1") == torch.device("cuda", 1)


@pytest.mark.parametrize(
    ("name", "count", "message"),
    [
        ("cuda", 0, "runtime.device=cuda: this PyTorch sees no CUDA device; use runtime.device=cpu"),
        ("cuda:1", 0, "runtime.device=cuda:1: this PyTorch sees no CUDA device; use runtime.device=cpu"),
        ("cuda:2", 2, "runtime.device=cuda:2: the last CUDA device here is cuda:1; use that"),
        ("gpu", 0, "runtime.device=gpu: expected auto, cpu, cuda or cuda:N"),
    ],
)
def test_a_device_that_is_not_there_is_refused_in_one_line(
    pretend_gpu, name: str, count: int, message: str
) -> None:
    pretend_gpu((8, 0), 40, count=count)
    with pytest.raises(BackendError) as caught:
        resolve_device(name)
    assert str(caught.value) == message
