from typing import Any, Literal

import torch

from parallax.config.models.base import ModelConfig
from parallax.model.decoder import Decoder
from parallax.model.registry import build_model
from parallax.parallel.exchange import GroupExchange
from parallax.parallel.mesh import Mesh
from parallax.parallel.native import NativeEngine
from parallax.parallel.vocabulary import SplitVocabulary

SharedForm = Literal["auto", "vocab_split", "copy_reduce"]


def build_native_engine(
    config: ModelConfig,
    *,
    mesh: Mesh | None,
    device: torch.device,
    attention_backend: str = "auto",
    shared: SharedForm = "auto",
    reshard_after_forward: bool | Literal["auto"] = "auto",
    overlap: bool = False,
    dtype: torch.dtype = torch.float32,
    **options: Any,
) -> NativeEngine:
    """An engine over this rank's part of the model: its tracks, and its rows of embedding and head.

    Args:
        config: of the model.
        mesh: None: one process.
        device: where this rank computes.
        attention_backend: see `build_model`.
        shared: see `resolve_shared`.
        reshard_after_forward: see `DataParallel`; auto: only where a model has one pass.
        overlap: cut a micro-batch in two halves, one of which computes while the other's tracks swap.
        dtype: of the weights.
        options: the other arguments of `NativeEngine`.

    Raises:
        BackendError: the attention backend cannot run on `device`.
    """
    model = build_part(
        config, mesh=mesh, device=device, attention_backend=attention_backend, shared=shared, overlap=overlap
    )
    return NativeEngine(
        model.to(dtype=dtype),
        device=device,
        mesh=mesh,
        reshard_after_forward=config.num_loops == 1 if reshard_after_forward == "auto" else reshard_after_forward,
        **options,
    )


def build_part(
    config: ModelConfig,
    *,
    mesh: Mesh | None,
    device: torch.device,
    attention_backend: str = "auto",
    shared: SharedForm = "auto",
    overlap: bool = False,
) -> Decoder:
    """This rank's part of a model, on the meta device; the whole of it without a track axis.

    Raises:
        BackendError: the attention backend cannot run on `device`.
    """
    exchange = vocabulary = None
    if mesh is not None and mesh.layout.track > 1:
        exchange = GroupExchange(config.num_tracks, mesh.track, num_pieces=2 if overlap else 1)
        if resolve_shared(shared) == "vocab_split":
            vocabulary = SplitVocabulary(config.vocab_size, mesh.track)
    return build_model(
        config, attention_backend=attention_backend, device=device, exchange=exchange, vocabulary=vocabulary
    )


def resolve_shared(shared: SharedForm) -> Literal["vocab_split", "copy_reduce"]:
    """The form behind `auto`: vocab_split, which holds nothing twice and repeats no work.

    copy_reduce keeps embedding, norm and head whole on every rank of the track axis, and computes head and loss
    on each: fewer bytes for small models, more memory and time for all (`docs/PARALLELISM.md`).
    """
    return "vocab_split" if shared == "auto" else shared
