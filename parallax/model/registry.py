import re

import torch

from parallax.attention.select import choose_backend
from parallax.attention.softmax.eager import EagerSoftmax
from parallax.config.models.base import ModelConfig
from parallax.model.decoder import Decoder
from parallax.model.dual_track import DualTrack
from parallax.model.exchange import Exchange
from parallax.model.gpt2 import Gpt2
from parallax.model.gpt2_duo_predict import Gpt2DuoPredict
from parallax.model.gpt2_parallel import Gpt2Parallel
from parallax.model.vocabulary import VocabularyAxis
from parallax.runtime.layout import SHARED, Owner, OwnershipMap

ARCHITECTURES: dict[str, type[Decoder]] = {
    "dual_track": DualTrack,
    "gpt2": Gpt2,
    "gpt2_drift_diffusion": Gpt2,
    "gpt2_rotating_head": Gpt2,
    "gpt2_parallel": Gpt2Parallel,
    "gpt2_duo_predict": Gpt2DuoPredict,
    "gpt2_duo_predict_strict": Gpt2DuoPredict,
}
"""The one place where architectures register."""

_OF_TRACK = re.compile(r"tracks\.(\d+)\.")
_OF_VOCABULARY = ("embedding.weight", "head.weight")


def ownership_of(config: ModelConfig) -> OwnershipMap:
    """Parameter name -> owner: the tracks' own, the vocabulary's rows, and what all share."""
    with torch.device("meta"):
        whole = ARCHITECTURES[config.architecture](config, EagerSoftmax())
    return {name: _owner(name) for name, _ in whole.named_parameters()}


def _owner(name: str) -> Owner:
    if name in _OF_VOCABULARY:
        return Owner(vocab_dim=0)
    track = _OF_TRACK.match(name)
    return Owner(track=int(track[1])) if track else SHARED


def build_model(
    config: ModelConfig,
    *,
    attention_backend: str = "auto",
    device: torch.device | str = "cpu",
    exchange: Exchange | None = None,
    vocabulary: VocabularyAxis | None = None,
) -> Decoder:
    """An unmaterialised model on the meta device, with the attention backend that `device` will run.

    Call `materialize` to give it memory and weights. With an exchange or a vocabulary axis of several ranks it
    holds this rank's part: its tracks, and its rows of embedding and head.

    Raises:
        BackendError: the attention backend is unknown or cannot run on `device`.
    """
    backend = choose_backend(config.attention, attention_backend, torch.device(device)).backend
    with torch.device("meta"):
        return ARCHITECTURES[config.architecture](config, backend, exchange, vocabulary)


def materialize(model: Decoder, device: torch.device | str, *, seed: int | None = None) -> Decoder:
    """Gives a meta model memory on `device`; with a seed, its weights are drawn, else they are undefined."""
    model.materialize(device)
    if seed is not None:
        model.initialize(seed)
    return model
