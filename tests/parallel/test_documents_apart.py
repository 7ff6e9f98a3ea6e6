"""An engine that keeps packed documents from seeing each other, under every transform."""

import itertools
import shutil
from typing import Any

import pytest
import torch
from small_engines import forward_backward, gradients, random_windows, shortened, small_engine
from torch import Tensor

EOS = 0
EXACT: dict[str, Any] = {"rtol": 1e-10, "atol": 1e-12}


def windows_with_eos() -> Tensor:
    windows = random_windows(4).clamp(min=1)
    windows[0, 3] = windows[1, 1] = windows[1, 4] = windows[2, 0] = EOS
    return windows


def parts(window: Tensor) -> list[Tensor]:
    """A row cut into its documents, each with the token behind it as its last target."""
    starts = [0, *(int(i) for i in torch.where(window[:-1] == EOS)[0] if i > 0), len(window) - 1]
    return [window[a : b + 1] for a, b in itertools.pairwise(starts)]


def test_gradients_are_those_of_the_documents_as_rows_of_their_own() -> None:
    together = small_engine(separating_eos_id=EOS)
    sums = forward_backward(together, windows_with_eos())
    alone = small_engine()
    pieces = [piece[None] for row in windows_with_eos() for piece in parts(row)]
    expected = forward_backward(alone, *pieces)
    assert len(pieces) == 7
    assert sums.tokens == expected.tokens
    torch.testing.assert_close(sums.nll, expected.nll, **EXACT)
    torch.testing.assert_close(gradients(together), gradients(alone), **EXACT)


def assert_same_gradients(**transforms: bool) -> None:
    plain, transformed = small_engine(separating_eos_id=EOS), small_engine(separating_eos_id=EOS, **transforms)
    forward_backward(plain, windows_with_eos())
    forward_backward(transformed, windows_with_eos())
    torch.testing.assert_close(gradients(transformed), gradients(plain), **EXACT)


def test_recomputing_blocks_changes_nothing() -> None:
    assert_same_gradients(activation_checkpointing=True)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs g++")
@pytest.mark.filterwarnings("ignore")  # torch's compiler warns of itself
@pytest.mark.parametrize("activation_checkpointing", [False, True])
def test_compiling_blocks_changes_nothing(activation_checkpointing: bool) -> None:
    torch.compiler.reset()
    assert_same_gradients(compile_blocks=True, activation_checkpointing=activation_checkpointing)


def test_a_mark_to_skip_a_target_does_not_begin_a_document() -> None:
    windows = shortened(windows_with_eos()[3:], [3])
    apart, plain = small_engine(separating_eos_id=EOS), small_engine()
    torch.testing.assert_close(forward_backward(apart, windows).nll, forward_backward(plain, windows).nll, **EXACT)
