from collections.abc import Callable
from dataclasses import dataclass

import torch

from parallax.attention.select import choose_backend
from parallax.config.model import ModelConfig
from parallax.model.dual_track import DualTrack, dual_track_ownership
from parallax.model.exchange import Exchange
from parallax.model.vocabulary import VocabularyAxis
from parallax.runtime.layout import OwnershipMap


@dataclass(frozen=True)
class Architecture:
    """What the harness needs to know of an architecture."""

    build: Callable[..., DualTrack]
    """(config, attention backend, exchange=None, vocabulary=None) -> model."""
    ownership: Callable[[ModelConfig], OwnershipMap]
    """Parameter name -> who holds it."""


ARCHITECTURES = {
    "dual_track": Architecture(DualTrack, dual_track_ownership),
}
"""The one place where architectures register."""


def build_model(
    config: ModelConfig,
    *,
    attention_backend: str = "auto",
    device: torch.device | str = "cpu",
    exchange: Exchange | None = None,
    vocabulary: VocabularyAxis | None = None,
) -> DualTrack:
    """An unmaterialised model on the meta device, with the attention backend that `device` will run.

    Call `materialize` to give it memory and weights. With an exchange or a vocabulary axis of several ranks it
    holds this rank's part: its tracks, and its rows of embedding and head.

    Raises:
        BackendError: the attention backend is unknown or cannot run on `device`.
    """
    backend = choose_backend(config.attention, attention_backend, torch.device(device)).backend
    with torch.device("meta"):
        return ARCHITECTURES[config.architecture].build(config, backend, exchange, vocabulary)


def materialize(model: DualTrack, device: torch.device | str, *, seed: int | None = None) -> DualTrack:
    """Gives a meta model memory on `device`; with a seed, its weights are drawn, else they are undefined."""
    model.materialize(device)
    if seed is not None:
        model.initialize(seed)
    return model
