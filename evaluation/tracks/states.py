from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from parallax.model.dual_track import DualTrack
from parallax.model.head import HeadOutput


@dataclass(frozen=True)
class States:
    """The residual streams of one batch on their way through the passes."""

    depths: Tensor
    """(K, R, L + 1, B, T, D): what a track read in a pass, and its stream after each block."""
    embedded: Tensor
    """(B, T, D): x, what every track starts from."""
    fused: Tensor
    """(B, T, D): the sum of the tracks' last outputs, before the norm."""


def capture_states(
    model: DualTrack, tokens: Tensor, targets: Tensor, documents: Tensor | None = None
) -> tuple[States, HeadOutput]:
    """One forward of (B, T) tokens, listened to by hooks that are gone afterwards; the model is as it was.

    Returns:
        The states, and the output with every token's loss.
    """
    streams: list[list[Tensor]] = [[] for _ in model.tracks]
    ends: list[Tensor] = []
    with ExitStack() as hooks:
        hooks.enter_context(model.embedding.register_forward_hook(_keep_output(ends)))
        for stream, track in zip(streams, model.tracks.values(), strict=True):
            for layer, block in enumerate(track.blocks):  # type: ignore[arg-type]
                if layer == 0:
                    hooks.enter_context(block.register_forward_pre_hook(_keep_input(stream)))
                hooks.enter_context(block.register_forward_hook(_keep_output(stream)))
        hooks.enter_context(model.norm.register_forward_pre_hook(_keep_input(ends)))
        output: HeadOutput = model(tokens, targets, per_token=True, documents=documents)
    shape = (model.config.num_loops, model.config.num_layers + 1)
    depths = torch.stack([torch.stack(stream).view(*shape, *stream[0].shape) for stream in streams])
    return States(depths, embedded=ends[0], fused=ends[1]), output


def _keep_input(kept: list[Tensor]) -> Callable[[Any, tuple[Tensor, ...]], None]:
    def hook(_: Any, given: tuple[Tensor, ...]) -> None:
        kept.append(given[0])

    return hook


def _keep_output(kept: list[Tensor]) -> Callable[[Any, Any, Tensor], None]:
    def hook(_: Any, __: Any, output: Tensor) -> None:
        kept.append(output)

    return hook
