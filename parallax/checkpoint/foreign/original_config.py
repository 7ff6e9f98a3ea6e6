from collections.abc import Mapping
from pathlib import Path
from typing import Any

from parallax.checkpoint.foreign.pickled import load_plain
from parallax.checkpoint.json_file import read_json
from parallax.config.load import check_model_config
from parallax.config.models.base import ModelConfig
from parallax.errors import CheckpointError

_RENAMED = {
    "block_size": "max_seq_len",
    "vocab_size": "vocab_size",
    "n_layer": "num_layers",
    "n_head": "num_heads",
    "n_embd": "hidden_size",
    "num_loops": "num_loops",
    "use_swap": "use_swap",
    "norm_eps": "norm_eps",
}
"""Their key, which has to be there -> ours."""
_OTHERS = {"n_kv_heads", "dropout", "bias", "activation"}
_ACTIVATIONS = ("swiglu", "silu")
_SECTIONS = ("model_config", "config")
"""Where a file that says other things too keeps the configuration."""
_OUTPUT_NORM_EPS = 1e-6
ROPE_THETA = 10_000.0
"""The original has no key for these two: they are written in its code."""


def find_original_config(weights: Path, named: Path | None = None) -> tuple[dict[str, Any], Path]:
    """The original's configuration as plain values, and the file that it stands in.

    Args:
        weights: the file of weights; `NAME.json`, `meta_*.json`, `meta_*.pt` and `config.json` are looked for
            beside it. Of several meta files, the one that ends like the weights' name counts
            (`model_000100.pt`, `meta_000100.pt`).
        named: the file to read instead.

    Raises:
        CheckpointError: no such file, several that differ, or one without a configuration in it.
    """
    candidates = [named] if named is not None else _beside(weights)
    found = [(_read(path), path) for path in candidates]
    if not found:
        raise CheckpointError(
            f"{weights} has no configuration beside it: looked for {weights.with_suffix('.json').name}, "
            f"meta_*.json, meta_*.pt and config.json; name the file with --config"
        )
    if any(config != found[0][0] for config, _ in found):
        names = ", ".join(path.name for _, path in found)
        raise CheckpointError(
            f"{weights} has configurations beside it that differ: {names}; name one with --config"
        )
    return found[0]


def _beside(weights: Path) -> list[Path]:
    folder = weights.parent
    metas = sorted(path for end in (".json", ".pt") for path in folder.glob(f"meta_*{end}"))
    same_ending = [path for path in metas if path.stem.partition("_")[2] == weights.stem.partition("_")[2]]
    plain = [weights.with_suffix(".json"), folder / "config.json"]
    exact = [path for path in plain[:1] if path.is_file()] + same_ending
    return exact or metas + [path for path in plain[1:] if path.is_file()]


def _read(path: Path) -> dict[str, Any]:
    content = read_json(path) if path.suffix == ".json" else load_plain(path)
    for inner in (content, *(content.get(key) for key in _SECTIONS)) if isinstance(content, dict) else ():
        if isinstance(inner, dict) and "n_layer" in inner:
            return inner
    raise CheckpointError(
        f"{path} holds no configuration of the original layout; expected a dictionary with n_layer, n_head, "
        f"n_embd and so on, or one under {' or '.join(_SECTIONS)}"
    )


def config_from_original(raw: Mapping[str, Any], source: str | Path, *, tied: bool) -> ModelConfig:
    """The model that the original's configuration describes: tracks a and b.

    Args:
        raw: its values.
        source: where they come from, for messages.
        tied: whether head and embedding are one matrix, which only the weights tell.

    Raises:
        CheckpointError: a key is missing or unknown, or asks for what this model has not.
        ConfigError: a value is out of range.
    """
    missing = [key for key in (*_RENAMED, "activation") if key not in raw]
    if missing:
        raise CheckpointError(f"{source}: {missing[0]} is missing; expected {', '.join(_RENAMED)} and activation")
    unknown = [key for key in raw if key not in _RENAMED and key not in _OTHERS]
    if unknown:
        raise CheckpointError(
            f"{source}: {unknown[0]}={raw[unknown[0]]!r} is no key of the original layout, and may change what "
            f"the model computes; if it does not, leave it out of a copy and name that with --config"
        )
    if raw.get("bias", False):
        raise CheckpointError(f"{source}: bias={raw['bias']!r}, and layers here have none; only false can be read")
    if raw["activation"] not in _ACTIVATIONS:
        raise CheckpointError(
            f"{source}: activation={raw['activation']!r}, and the feed-forward layer here is a SwiGLU; only "
            f"{' or '.join(_ACTIVATIONS)} can be read"
        )
    if not isinstance(raw["n_embd"], int):
        raise CheckpointError(f"{source}: n_embd={raw['n_embd']!r}: expected a whole number")
    return check_model_config(
        {ours: raw[theirs] for theirs, ours in _RENAMED.items()}
        | {
            "num_tracks": 2,
            "num_kv_heads": raw.get("n_kv_heads") or raw["n_head"],
            "intermediate_size": int(8 / 3 * raw["n_embd"]),
            "dropout": raw.get("dropout", 0.0),
            "output_norm_eps": _OUTPUT_NORM_EPS,
            "rope_theta": ROPE_THETA,
            "tie_embeddings": tied,
        },
        str(source),
    )
