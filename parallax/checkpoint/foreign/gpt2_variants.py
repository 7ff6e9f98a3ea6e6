import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from parallax.checkpoint.foreign.gpt2 import config_from_gpt2, with_prefix
from parallax.checkpoint.foreign.names import GPT2, from_foreign
from parallax.checkpoint.json_file import read_json
from parallax.config.models.base import ModelConfig
from parallax.errors import CheckpointError

MASK_TOKEN = "<|MASK|>"
"""What stands in the slots of queries in the text that duo-predict was trained on."""
_ATTENTION = "tracks.0.blocks.{layer}.attention."
_NORM_EPS = 1e-5
"""Of the norm over frequencies, which has no key."""


class Folder(NamedTuple):
    """A variant's folder, read."""

    raw: Mapping[str, Any]
    """Its config.json."""
    tensors: dict[str, Tensor]
    """By their names. A reader takes its own parameters out; what is left is a GPT-2."""
    path: Path


def read_variant(
    raw: Mapping[str, Any], tensors: Mapping[str, Tensor], path: Path
) -> tuple[ModelConfig, Mapping[str, Tensor]]:
    """A published variant of GPT-2, as the code that trained it names and computes it.

    Args:
        raw: content of config.json, whose `model_type` is one of `READERS`.
        tensors: of the folder.
        path: of the folder.

    Raises:
        CheckpointError: it has what this model has not, or tensors do not fit.
        ConfigError: a value is out of range.
    """
    return READERS[raw["model_type"]](Folder(raw, with_prefix(tensors, path), path))


def _parallel(folder: Folder) -> tuple[ModelConfig, Mapping[str, Tensor]]:
    """Blocks 2p and 2p + 1 are a pair.

    | theirs                              | ours                                                |
    |-------------------------------------|-----------------------------------------------------|
    | bottleneck.weight (D, 2D)           | tracks.K.merges.P.weight, its K-th half, for every P |
    | bottleneck.bias                     | biases.P, for every P                               |

    One bottleneck serves all pairs there. Here each has its own: they begin equal, and training parts them.
    """
    merge = folder.raw.get("bottleneck_method", "mean")
    if merge not in ("mean", "concat"):
        raise CheckpointError(f"{folder.path}: bottleneck_method={merge!r}; only mean and concat can be read")
    config = config_from_gpt2(folder.raw, folder.path, architecture="gpt2_parallel", merge=merge)
    if merge == "mean":
        return config, from_foreign(GPT2, config, folder.tensors, folder.path)
    width = config.hidden_size
    matrix = _taken(folder, "transformer.bottleneck.weight", (width, 2 * width))
    bias = _taken(folder, "transformer.bottleneck.bias", (width,))
    merges = {f"biases.{pair}": bias for pair in range(config.layers_per_track)}
    for track, half in enumerate(matrix.chunk(2, dim=1)):
        merges |= {f"tracks.{track}.merges.{pair}.weight": half for pair in range(config.layers_per_track)}
    return config, {**from_foreign(GPT2, config, folder.tensors, folder.path), **merges}


def _drift_diffusion(folder: Folder) -> tuple[ModelConfig, Mapping[str, Tensor]]:
    """With attention's output a, drift d, baseline b and attention.output W, c:

    | theirs                                       | ours                                              |
    |----------------------------------------------|---------------------------------------------------|
    | attn.drift_param (H, E), attn.baseline (H, E): | W (1 + s), c - W s b, with s = sigmoid(d): the    |
    |   a + sigmoid(d) (a - b)                     |   same output of a plain GPT-2                    |
    | attn.drift_param (H, 1, 1): a + d a          | attention.perturbation.drift                      |
    | attn.diffusion_param (H, E): noise that      | nothing: it is drawn in training only             |
    |   training adds                              |                                                   |
    """
    names = [name for name in folder.tensors if name.endswith("attn.drift_param")]
    if names and folder.tensors[names[0]].dim() == 3:
        return _plain_drift(folder)
    config = config_from_gpt2(folder.raw, folder.path)
    shape = (config.num_heads, config.head_dim)
    found: dict[int, tuple[Tensor, Tensor]] = {}
    for layer in range(config.num_layers):
        prefix = f"transformer.h.{layer}.attn."
        folder.tensors.pop(f"{prefix}diffusion_param", None)
        if names:
            share = _taken(folder, f"{prefix}drift_param", shape).sigmoid().flatten()
            has_baseline = f"{prefix}baseline" in folder.tensors
            baseline = _taken(folder, f"{prefix}baseline", shape) if has_baseline else torch.zeros(shape)
            found[layer] = share, baseline.flatten()
    weights = dict(from_foreign(GPT2, config, folder.tensors, folder.path))
    for layer, (share, baseline) in found.items():
        name = _ATTENTION.format(layer=layer) + "output."
        matrix = weights[name + "weight"]
        weights[name + "bias"] = weights[name + "bias"] - matrix @ (share * baseline)
        weights[name + "weight"] = matrix * (1 + share)
    return config, weights


def _plain_drift(folder: Folder) -> tuple[ModelConfig, Mapping[str, Tensor]]:
    noise = folder.raw.get("diffusion_std", 0.1) if folder.raw.get("apply_diffusion", False) else 0.0
    config = config_from_gpt2(
        folder.raw, folder.path, architecture="gpt2_drift_diffusion", drift=True, diffusion_std=noise
    )
    drifts = {
        f"{_ATTENTION.format(layer=layer)}perturbation.drift": _taken(
            folder, f"transformer.h.{layer}.attn.drift_param", (config.num_heads, 1, 1)
        )
        for layer in range(config.num_layers)
    }
    return config, {**from_foreign(GPT2, config, folder.tensors, folder.path), **drifts}


def _rotating_head(folder: Folder) -> tuple[ModelConfig, Mapping[str, Tensor]]:
    """GPT-2's learned positions stay. Fixed frequencies shrink tenfold from the first head to the last.

    | theirs                          | ours                                                             |
    |---------------------------------|------------------------------------------------------------------|
    | attn.c_attn, pairs (2i, 2i + 1) | attention.qkv, pairs (i, i + E/2): rows of q and k in that order |
    | attn.rope.frequencies           | attention.rotation.frequencies (LR)                              |
    | attn.rope.layer_norm, if there  | attention.rotation.norm                                          |
    """
    kind = str(folder.raw.get("rotatinghead", "lr")).upper()
    if kind not in ("LR", "GP"):
        raise CheckpointError(f"{folder.path}: rotatinghead={kind.lower()!r}; only lr and gp can be read")
    has_norm = any(name.endswith("rope.layer_norm.weight") for name in folder.tensors)
    config = config_from_gpt2(
        folder.raw,
        folder.path,
        architecture="gpt2_rotating_head",
        frequencies=kind,
        use_norm=has_norm,
        rope_theta=float(folder.raw.get("base_frequency", 10_000)),
        frequency_spread=-math.log(10),
        learned_positions=True,
    )
    if has_norm and config.norm_eps != _NORM_EPS:
        raise CheckpointError(
            f"{folder.path}: layer_norm_epsilon={config.norm_eps}, and the norm over frequencies has {_NORM_EPS} "
            f"there; here one epsilon serves both"
        )
    pairs = config.head_dim // 2
    added: dict[str, Tensor] = {}
    for layer in range(config.num_layers):
        theirs, ours = f"transformer.h.{layer}.attn.rope.", _ATTENTION.format(layer=layer) + "rotation."
        if kind == "LR":
            added[f"{ours}frequencies"] = _taken(folder, f"{theirs}frequencies", (config.num_heads, pairs))
        if has_norm:
            for part in ("weight", "bias"):
                added[f"{ours}norm.{part}"] = _taken(folder, f"{theirs}layer_norm.{part}", (pairs,))
    weights = dict(from_foreign(GPT2, config, folder.tensors, folder.path)) | added
    for layer in range(config.num_layers):
        for part in ("weight", "bias"):
            name = f"{_ATTENTION.format(layer=layer)}qkv.{part}"
            weights[name] = _halved(weights[name], config)
    return config, weights


def _halved(rows: Tensor, config: ModelConfig) -> Tensor:
    """Rows of q, k and v with each head's even rows before its odd ones, in q and k."""
    turned, values = torch.split(rows, [2 * config.hidden_size, config.hidden_size])
    paired = turned.reshape(-1, config.head_dim // 2, 2, *rows.shape[1:])
    return torch.cat((paired.transpose(1, 2).reshape(turned.shape), values))


def _duo_predict(folder: Folder) -> tuple[ModelConfig, Mapping[str, Tensor]]:
    """A token and its query share a position, and a query begins as the embedding of `<|MASK|>`.

    | theirs               | ours                                       |
    |----------------------|--------------------------------------------|
    | wpe.weight, row t    | positions.weight, rows 2t and 2t + 1       |
    | wte.weight, its row  | query.weight                               |
    """
    mask_id = _id_of(folder, MASK_TOKEN)
    name = "transformer.wpe.weight"
    config = config_from_gpt2(folder.raw, folder.path, architecture="gpt2_duo_predict")
    folder.tensors[name] = _taken(folder, name, (config.max_seq_len, config.hidden_size)).repeat_interleave(2, 0)
    weights = dict(from_foreign(GPT2, config, folder.tensors, folder.path))
    embedding = weights["embedding.weight"]
    if mask_id >= len(embedding):
        raise CheckpointError(
            f"{folder.path}: {MASK_TOKEN} is id {mask_id}, and the embedding has {len(embedding)} rows"
        )
    return config, {**weights, "query.weight": embedding[mask_id : mask_id + 1].clone()}


def _id_of(folder: Folder, token: str) -> int:
    """The id of an added token, from whichever of transformers' files states it."""
    for name in ("tokenizer.json", "added_tokens.json"):
        file = folder.path / name
        content = read_json(file) if file.is_file() else {}
        entries = content.get("added_tokens", [])
        listed = {entry["content"]: entry["id"] for entry in entries} if isinstance(entries, list) else {}
        if token in (known := content | listed):
            return int(known[token])
    raise CheckpointError(
        f"{folder.path}: neither tokenizer.json nor added_tokens.json has {token}, whose embedding the queries of "
        f"duo-predict begin as; add the tokenizer that it was trained with"
    )


def _taken(folder: Folder, name: str, shape: tuple[int, ...]) -> Tensor:
    """A tensor, taken out of those of the folder."""
    found = folder.tensors.pop(name, None)
    if found is None:
        raise CheckpointError(f"{folder.path} lacks {name}, which a {folder.raw['model_type']} has")
    if tuple(found.shape) != shape:
        raise CheckpointError(f"{folder.path}: {name} is {tuple(found.shape)}, not {shape}")
    return found


READERS: dict[str, Callable[[Folder], tuple[ModelConfig, Mapping[str, Tensor]]]] = {
    "parallel-gpt2": _parallel,
    "dd-gpt2": _drift_diffusion,
    "rotating-head-gpt2": _rotating_head,
    "duo-predict-gpt2": _duo_predict,
}
"""`model_type` of config.json -> how it is read."""
