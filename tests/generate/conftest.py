from collections.abc import Callable
from typing import Any

import pytest
import torch

from parallax.config.models.dual_track import DualTrackConfig
from parallax.model.dual_track import DualTrack
from parallax.model.registry import build_model, materialize


def _make_model(*, attention_backend: str = "auto", **changes: Any) -> DualTrack:
    sizes = {"num_layers": 2, "num_heads": 4, "num_kv_heads": 2, "hidden_size": 16, "intermediate_size": 24}
    config = DualTrackConfig(**{**sizes, "vocab_size": 31, "max_seq_len": 12, **changes})
    model = materialize(build_model(config, attention_backend=attention_backend), "cpu", seed=1).double()
    with torch.no_grad():
        for parameter in model.parameters():
            # Away from initialisation, where all tokens are almost equally likely and tracks do little.
            parameter.mul_(10 if parameter.dim() > 1 else 1)
    return model.eval()


@pytest.fixture
def make_model() -> Callable[..., DualTrack]:
    """A small fp64 model of 31 tokens with a window of 12; keyword arguments change its configuration."""
    return _make_model


@pytest.fixture
def model() -> DualTrack:
    """Two tracks, two passes, swap, two query heads to a key head."""
    return _make_model()
