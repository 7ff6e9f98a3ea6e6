"""The flash-attn backend with stand-ins for the package; its real kernels need a GPU."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from parallax.attention.select import choose_backend, explain
from parallax.attention.softmax import flash
from parallax.attention.softmax.eager import EagerSoftmax
from parallax.attention.softmax.flash import FlashSoftmax

CUDA = torch.device("cuda", 0)
RIGHT = """
from parallax.attention.softmax.sdpa import SdpaSoftmax
def flash_attn_func(q, k, v, causal, deterministic):
    assert causal
    q, k, v = (t.transpose(1, 2) for t in (q, k, v))
    return SdpaSoftmax().attend(q, k, v, None).transpose(1, 2)
"""
WRONG = RIGHT.replace("(q, k, v, None)", "(q, k, v * 1.1, None)")
WRONG_BACKWARD = RIGHT.replace("(q, k, v, None)", "(q, k.detach(), v + 0 * k, None)")
RAISES = "def flash_attn_func(*args, **kwargs):\n    raise RuntimeError('no kernel image\\nmore')\n"
HOLLOW = "import flash_attn_2_cuda\n"
BROKEN = "raise OSError('undefined symbol: _ZN3c10')\n"

Install = Callable[[str, tuple[int, int]], FlashSoftmax]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Puts a package on the path, and a card of some capability whose tensors lie on the CPU."""
    prove = flash.probe_error

    def put(source: str, capability: tuple[int, int]) -> FlashSoftmax:
        (tmp_path / "flash_attn.py").write_text(source)
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
        monkeypatch.setattr(flash, "probe_error", lambda package, device: prove(package, torch.device("cpu")))
        return FlashSoftmax()

    monkeypatch.delitem(__import__("sys").modules, "flash_attn", raising=False)
    flash._load.cache_clear()
    flash._prove.cache_clear()
    yield put
    __import__("sys").modules.pop("flash_attn", None)
    flash._load.cache_clear()
    flash._prove.cache_clear()


@pytest.mark.parametrize(
    ("source", "why"),
    [
        (WRONG, "flash-attn gave wrong numbers on cuda:0: error "),
        (WRONG_BACKWARD, "flash-attn gave wrong numbers on cuda:0: error "),
        (RAISES, "flash-attn failed its trial on cuda:0: no kernel image"),
        (HOLLOW, "flash-attn is installed but hollow: No module named 'flash_attn_2_cuda'"),
        (BROKEN, "flash-attn is installed but does not import: undefined symbol: _ZN3c10"),
    ],
)
def test_a_bad_package_is_passed_over_with_the_reason(install: Install, source: str, why: str) -> None:
    reason = install(source, (8, 6)).unavailable(CUDA)
    assert reason is not None
    assert reason.startswith(why)
    assert "\n" not in reason
    assert choose_backend("softmax", "auto", CUDA).backend.name == "sdpa"
    assert explain("softmax", CUDA)[0] == ("flash", reason)


@pytest.mark.parametrize(
    ("capability", "taken"), [((7, 5), "sdpa"), ((8, 0), "flash"), ((8, 6), "flash"), ((9, 0), "flash")]
)
def test_auto_takes_flash_from_sm_80_on(install: Install, capability: tuple[int, int], taken: str) -> None:
    install(RIGHT, capability)
    assert choose_backend("softmax", "auto", CUDA).backend.name == taken
    if taken == "sdpa":
        assert explain("softmax", CUDA)[0][1] == "flash-attn 2 needs sm_80 or later, this device is sm_75"


def test_flash_is_not_for_the_cpu() -> None:
    assert FlashSoftmax().unavailable(torch.device("cpu")) == "flash-attn is made for CUDA, not for cpu"


@pytest.mark.parametrize("case", ["mask", "fp32", "wide"])
def test_what_the_package_cannot_do_is_served_by_sdpa(install: Install, case: str) -> None:
    backend = install(RAISES, (8, 6))
    dtype = torch.float32 if case == "fp32" else torch.bfloat16
    q, k, v = (torch.randn(1, 2, 6, 264 if case == "wide" else 16, dtype=dtype) for _ in range(3))
    mask: Tensor | None = torch.ones(1, 1, 6, 6, dtype=torch.bool).tril() if case == "mask" else None
    expected = EagerSoftmax().attend(q, k, v, mask)
    torch.testing.assert_close(backend.attend(q, k, v, mask), expected, rtol=2e-2, atol=2e-2)
