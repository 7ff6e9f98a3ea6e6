import atexit
import os
import sys
from dataclasses import dataclass
from pathlib import Path

import torch

from parallax.checkpoint.model import load_model
from parallax.config.run import RunConfig
from parallax.data.tokenizer import Tokenizer
from parallax.data.tokenizer_files import load_tokenizer
from parallax.errors import ConfigError, TokenizerError
from parallax.model.decoder import Decoder
from parallax.runtime.device import resolve_device
from parallax.runtime.process_group import leave
from parallax.runtime.ranks import read_ranks
from parallax.train.spread import load_spread

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class ReadyModel:
    """A trained model and what is needed to read and write text with it."""

    model: Decoder
    run_config: RunConfig | None
    """Of the run that trained it; None: the model came without one."""
    tokenizer: Tokenizer
    path: Path


def open_model(checkpoint: str, *, device: str, dtype: str) -> ReadyModel:
    """Loads a checkpoint or model folder for use, its weights converted to `dtype`; under torchrun, shared out.

    Raises:
        ConfigError: an unknown dtype.
        CheckpointError: no usable model there.
        TokenizerError: it came without a tokenizer, or with one that cannot be read.
    """
    ranks = read_ranks()
    place = resolve_device(device, ranks.local_rank)
    if ranks.world_size == 1:
        loaded = load_model(checkpoint, device=place, dtype=parse_dtype(dtype))
    else:
        loaded = load_spread(checkpoint, ranks, place, parse_dtype(dtype))
        atexit.register(leave)
    if ranks.rank:
        # All ranks write the same; the first one's is shown.
        sys.stdout = sys.stderr = Path(os.devnull).open("w")  # noqa: SIM115
    if loaded.tokenizer_json is None:
        raise TokenizerError(
            f"{loaded.path} came without a tokenizer, so text cannot be read or written with it; "
            f"import it again with --tokenizer"
        )
    return ReadyModel(loaded.model, loaded.run_config, load_tokenizer(loaded.path), loaded.path)


def parse_dtype(dtype: str) -> torch.dtype:
    """The type that `--dtype` names.

    Raises:
        ConfigError: an unknown one.
    """
    if dtype not in DTYPES:
        raise ConfigError(f"--dtype {dtype}: expected {', '.join(DTYPES)}")
    return DTYPES[dtype]
