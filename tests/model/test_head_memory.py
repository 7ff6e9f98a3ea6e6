"""The head never holds the logits of all tokens at once."""

import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakIdKeyDictionary

from parallax.model.head import LanguageHead, Objective
from parallax.model.vocabulary import WholeVocabulary

N, D, V = 512, 4, 256
CHUNK = 32
ALL_LOGITS_BYTES = N * V * 4
CHUNK_LOGITS_BYTES = CHUNK * V * 4


class MemoryMeter(TorchDispatchMode):
    """Counts the bytes of the tensors that operations make, from their making to their release."""

    def __init__(self) -> None:
        super().__init__()
        self.live_bytes = 0
        self.peak_bytes = 0
        self._known = WeakIdKeyDictionary()

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        made = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, Tensor):
                self._count(tensor.untyped_storage())
        return made

    def _count(self, storage: torch.UntypedStorage) -> None:
        if storage in self._known:
            return
        self._known[storage] = True
        weakref.finalize(storage, self._release, storage.nbytes())
        self.live_bytes += storage.nbytes()
        self.peak_bytes = max(self.peak_bytes, self.live_bytes)

    def _release(self, num_bytes: int) -> None:
        self.live_bytes -= num_bytes


@pytest.fixture
def head() -> LanguageHead:
    head = LanguageHead(D, WholeVocabulary(V))
    torch.nn.init.normal_(head.weight)
    return head


@pytest.fixture
def inputs() -> tuple[Tensor, Tensor]:
    return torch.randn(2, N // 2, D, requires_grad=True), torch.randint(V, (2, N // 2))


def test_forward_and_backward_hold_a_few_chunks_of_logits(
    head: LanguageHead, inputs: tuple[Tensor, Tensor]
) -> None:
    with MemoryMeter() as meter:
        output = head(*inputs, Objective(label_smoothing=0.1, z_loss=0.1, chunk_tokens=CHUNK))
        output.objective_sum.backward()
    beside_logits = 4 * (2 * N * D + 3 * V * D + 2 * N)
    assert meter.peak_bytes < 3 * CHUNK_LOGITS_BYTES + beside_logits < ALL_LOGITS_BYTES / 2


def test_the_meter_sees_logits_that_are_held_at_once(head: LanguageHead, inputs: tuple[Tensor, Tensor]) -> None:
    hidden, targets = inputs
    with MemoryMeter() as meter:
        F.cross_entropy((hidden @ head.weight.T).flatten(0, 1), targets.flatten()).backward()
    assert meter.peak_bytes >= 2 * ALL_LOGITS_BYTES


def test_without_gradients_nothing_is_kept_for_them(head: LanguageHead, inputs: tuple[Tensor, Tensor]) -> None:
    with MemoryMeter() as training:
        kept = head(*inputs, Objective(chunk_tokens=CHUNK))
    with MemoryMeter() as measuring, torch.no_grad():
        head(*inputs, Objective(chunk_tokens=CHUNK))
    gradient_bytes = 4 * (N * D + V * D)
    assert measuring.live_bytes <= training.live_bytes - gradient_bytes
    assert measuring.peak_bytes <= training.peak_bytes - gradient_bytes
    del kept
