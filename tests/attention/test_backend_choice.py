"""Which attention backend runs, and why."""

import pytest
import torch

from parallax.attention import select
from parallax.attention.select import OPERATORS, choose_backend, explain
from parallax.attention.softmax.eager import EagerSoftmax
from parallax.attention.softmax.sdpa import SdpaSoftmax
from parallax.errors import BackendError

CPU = torch.device("cpu")


class AbsentSoftmax(EagerSoftmax):
    """A backend whose library is not there."""

    name = "flash"

    def unavailable(self, device: torch.device) -> str | None:
        return f"flash-attn is not installed for {device.type}"


@pytest.fixture
def with_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(select.OPERATORS, "softmax", (AbsentSoftmax(), SdpaSoftmax(), EagerSoftmax()))


def test_auto_takes_the_first_backend_and_says_why() -> None:
    choice = choose_backend("softmax", "auto", CPU)
    assert choice.backend is OPERATORS["softmax"][1]
    assert choice.backend.name == "chunked"
    assert "cpu" in choice.reason


@pytest.mark.usefixtures("with_absent")
def test_auto_passes_over_a_backend_that_is_absent() -> None:
    assert choose_backend("softmax", "auto", CPU).backend.name == "sdpa"


@pytest.mark.usefixtures("with_absent")
def test_an_absent_backend_asked_for_by_name_is_refused_with_the_way_out() -> None:
    with pytest.raises(BackendError) as caught:
        choose_backend("softmax", "flash", CPU)
    assert str(caught.value) == (
        "runtime.attention_backend=flash: flash-attn is not installed for cpu; use runtime.attention_backend=auto"
    )


def test_auto_without_any_backend_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(select.OPERATORS, "softmax", (AbsentSoftmax(),))
    with pytest.raises(BackendError, match="no backend of softmax attention runs on cpu"):
        choose_backend("softmax", "auto", CPU)


@pytest.mark.parametrize("name", ["eager", "sdpa", "chunked"])
def test_a_backend_asked_for_by_name_is_taken(name: str) -> None:
    choice = choose_backend("softmax", name, CPU)
    assert (choice.backend.name, choice.reason) == (name, "asked for")


@pytest.mark.parametrize(
    ("wrong", "hint"), [("spda", "did you mean 'sdpa'?"), ("xyz", "known: auto, flash, chunked, sdpa, eager")]
)
def test_an_unknown_backend_names_the_nearest_or_all(wrong: str, hint: str) -> None:
    with pytest.raises(BackendError) as caught:
        choose_backend("softmax", wrong, CPU)
    message = str(caught.value)
    assert message == f"runtime.attention_backend={wrong!r} is unknown for softmax attention; {hint}"


@pytest.mark.usefixtures("with_absent")
def test_explain_lists_every_backend_in_order_with_what_is_missing() -> None:
    assert explain("softmax", CPU) == [
        ("flash", "flash-attn is not installed for cpu"),
        ("sdpa", "available"),
        ("eager", "available"),
    ]


def test_on_a_gpu_auto_takes_the_fused_kernel() -> None:
    cuda = torch.device("cuda")
    assert choose_backend("softmax", "auto", cuda).backend.name == "sdpa"
    with pytest.raises(BackendError, match="made for the CPU"):
        choose_backend("softmax", "chunked", cuda)
