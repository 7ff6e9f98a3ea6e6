"""Deterministic kernels on CUDA need cuBLAS's workspace fixed as well, unless the user has chosen one."""

import os
from collections.abc import Iterator

import pytest
import torch

from parallax.runtime.determinism import use_deterministic_kernels


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize(("chosen", "expected"), [(None, ":4096:8"), (":16:8", ":16:8")])
def test_the_workspace_is_fixed_and_the_users_choice_wins(
    chosen: str | None, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", chosen or "")
    if chosen is None:
        monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG")
    use_deterministic_kernels()
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == expected
    assert torch.are_deterministic_algorithms_enabled()
