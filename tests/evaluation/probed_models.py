"""Models small enough for float64 and a plain second statement of their forward, with things taken out."""

from collections.abc import Callable
from math import sqrt
from typing import Any

import torch
from torch import Tensor

from parallax.config.models.dual_track import DualTrackConfig
from parallax.model.dual_track import DualTrack
from parallax.model.registry import build_model, materialize

Weights = dict[str, Tensor]
Edit = Callable[[dict[int, Tensor], int], dict[int, Tensor]]
"""(outputs by track, pass from 1) -> what is sent or summed instead."""


def drawn_model(*, seed: int = 0, dtype: torch.dtype = torch.float64, **changes: Any) -> DualTrack:
    """Two tracks of two layers, 16 wide, with every weight drawn large."""
    sizes: dict[str, Any] = {
        "num_layers": 2,
        "num_heads": 2,
        "hidden_size": 16,
        "intermediate_size": 24,
        "vocab_size": 13,
        "max_seq_len": 12,
    }
    model = build_model(DualTrackConfig(**(sizes | changes))).to(dtype)
    materialize(model, "cpu", seed=seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0.0, 0.3, generator=generator)
            if parameter.dim() == 1:
                parameter.add_(1.0)
    return model.eval()


def drawn_batches(model: DualTrack, *, windows: int = 4, seed: int = 1) -> list[tuple[Tensor, Tensor]]:
    """Random windows, two at a time."""
    generator = torch.Generator().manual_seed(seed)
    shape = (windows, model.config.max_seq_len + 1)
    text = torch.randint(model.config.vocab_size, shape, generator=generator)
    return list(zip(text[:, :-1].split(2), text[:, 1:].split(2), strict=True))


def _norm(h: Tensor, weight: Tensor, eps: float) -> Tensor:
    return h / (h.pow(2).mean(-1, keepdim=True) + eps).sqrt() * weight


def _rotate(x: Tensor, theta: float) -> Tensor:
    half = x.shape[-1] // 2
    turns = torch.tensor([theta ** (-2 * i / x.shape[-1]) for i in range(half)], dtype=x.dtype)
    angle = torch.arange(x.shape[-2], dtype=x.dtype)[:, None] * turns
    a, b = x[..., :half], x[..., half:]
    return torch.cat((a * angle.cos() - b * angle.sin(), a * angle.sin() + b * angle.cos()), dim=-1)


def _block(h: Tensor, w: Weights, name: str, c: DualTrackConfig) -> Tensor:
    width = c.hidden_size // c.num_heads
    n = _norm(h, w[f"{name}.attention_norm.weight"], c.norm_eps)
    q, k, v = (n @ part.T for part in w[f"{name}.attention.qkv.weight"].chunk(3))
    heads = []
    for i in range(0, c.hidden_size, width):
        key, query = _rotate(k[..., i : i + width], c.rope_theta), _rotate(q[..., i : i + width], c.rope_theta)
        scores = (query @ key.mT / sqrt(width)).exp().tril()
        heads.append(scores / scores.sum(-1, keepdim=True) @ v[..., i : i + width])
    h = h + torch.cat(heads, -1) @ w[f"{name}.attention.output.weight"].T
    n = _norm(h, w[f"{name}.mlp_norm.weight"], c.norm_eps)
    gate, up = (n @ part.T for part in w[f"{name}.mlp.gate_up.weight"].chunk(2))
    return h + (gate * torch.sigmoid(gate) * up) @ w[f"{name}.mlp.down.weight"].T


def unchanged(outputs: dict[int, Tensor], loop: int) -> dict[int, Tensor]:
    """Takes nothing out."""
    return outputs


def restated_fused(
    model: DualTrack,
    tokens: Tensor,
    *,
    sent: Edit = unchanged,
    summed: Edit = unchanged,
    unswapped: frozenset[int] = frozenset(),
    outputs_of_passes: list[dict[int, Tensor]] | None = None,
) -> Tensor:
    """(B, T, D): the sum of the tracks, by the equations, with edits; the outputs of each pass are kept."""
    w, c = dict(model.named_parameters()), model.config
    x = w["embedding.weight"][tokens]
    read = dict.fromkeys(range(c.num_tracks), x)
    outputs: dict[int, Tensor] = {}
    for loop in range(1, c.num_loops + 1):
        for k, h in read.items():
            for layer in range(c.num_layers):
                h = _block(h, w, f"tracks.{k}.blocks.{layer}", c)
            outputs[k] = h
        if outputs_of_passes is not None:
            outputs_of_passes.append(dict(outputs))
        if loop == c.num_loops:
            break
        passed = sent(dict(outputs), loop) if c.use_swap else outputs
        swaps = c.use_swap and loop not in unswapped
        for k in read:
            came = passed[(k - 1) % c.num_tracks] if swaps else passed[k]
            read[k] = came + x if c.reinjects else came
    fused = torch.zeros_like(x)
    for output in summed(dict(outputs), c.num_loops).values():
        fused = fused + output
    return fused


def restated_losses(model: DualTrack, fused: Tensor, targets: Tensor) -> Tensor:
    """(B, T) nats of each token, given the sum of the tracks."""
    w = dict(model.named_parameters())
    logits = _norm(fused, w["norm.weight"], model.config.output_norm_eps) @ w["head.weight"].T
    return logits.exp().sum(-1).log() - logits.gather(-1, targets[..., None])[..., 0]
