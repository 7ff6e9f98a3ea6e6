from dataclasses import dataclass
from pathlib import Path

import torch

from parallax.checkpoint.model import load_model
from parallax.config.run import RunConfig
from parallax.data.tokenizer import Tokenizer
from parallax.data.tokenizer_files import tokenizer_from_json
from parallax.errors import ConfigError
from parallax.model.dual_track import DualTrack
from parallax.runtime.device import resolve_device

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class ReadyModel:
    """A trained model and what is needed to read and write text with it."""

    model: DualTrack
    config: RunConfig
    tokenizer: Tokenizer
    path: Path


def open_model(checkpoint: str, *, device: str, dtype: str) -> ReadyModel:
    """Loads a checkpoint for use, its weights converted to `dtype`.

    Raises:
        ConfigError: an unknown dtype.
        CheckpointError: no usable checkpoint there.
    """
    if dtype not in DTYPES:
        raise ConfigError(f"--dtype {dtype}: expected {', '.join(DTYPES)}")
    loaded = load_model(checkpoint, device=resolve_device(device), dtype=DTYPES[dtype])
    return ReadyModel(loaded.model, loaded.config, tokenizer_from_json(loaded.tokenizer_json), loaded.path)
