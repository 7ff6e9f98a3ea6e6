from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from parallax.checkpoint.catalogue import Report, log_warning
from parallax.checkpoint.load import Checkpoint, load_weights, read_checkpoint
from parallax.config.load import check_config
from parallax.config.run import RunConfig
from parallax.config.yaml_strict import parse_yaml
from parallax.errors import CheckpointError, ConfigError
from parallax.model.dual_track import DualTrack
from parallax.model.registry import build_model, materialize

CONFIG_FILE = "config.yaml"
TOKENIZER_FILE = "tokenizer.json"


@dataclass(frozen=True)
class LoadedModel:
    """A model as it was saved, and what belongs to it."""

    model: DualTrack
    """In evaluation mode."""
    config: RunConfig
    """The resolved configuration of the run that trained it."""
    tokenizer_json: str
    """Text of the tokenizer whose token ids it reads."""
    state: dict[str, Any]
    """The run's state at that step."""
    path: Path
    """The checkpoint's folder."""


def load_model(
    path: str | Path,
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype | None = None,
    attention_backend: str = "auto",
    report: Report = log_warning,
) -> LoadedModel:
    """Builds the model of a checkpoint from the configuration in it and loads its weights.

    Args:
        path: a checkpoint, a run folder, or RUN/best; see `find_checkpoint`.
        device: where the model will live.
        dtype: type of the weights; None: fp32, as they are trained.
        attention_backend: see `build_model`.
        report: told about every damaged checkpoint that is passed over.

    Raises:
        CheckpointError: no good checkpoint there, or one that this version cannot build.
        BackendError: the attention backend cannot run on `device`.
    """
    checkpoint = read_checkpoint(path, report=report)
    config = checkpoint_config(checkpoint)
    model = build_model(config.model, attention_backend=attention_backend, device=device).to(dtype=dtype)
    materialize(model, device)
    load_weights(model, checkpoint.weights, source=checkpoint.path)
    return LoadedModel(
        model=model.eval(),
        config=config,
        tokenizer_json=_text(checkpoint, TOKENIZER_FILE),
        state=checkpoint.state,
        path=checkpoint.path,
    )


def checkpoint_config(checkpoint: Checkpoint) -> RunConfig:
    """The configuration that a checkpoint was trained with.

    Raises:
        CheckpointError: it has none, or one that this version does not understand.
    """
    text = _text(checkpoint, CONFIG_FILE)
    source = str(checkpoint.path / CONFIG_FILE)
    try:
        return check_config(parse_yaml(text, source), source)
    except ConfigError as error:
        raise CheckpointError(f"{error}; this version of Parallax cannot build that model") from None


def _text(checkpoint: Checkpoint, name: str) -> str:
    if name not in checkpoint.texts:
        raise CheckpointError(f"{checkpoint.path} has no {name}, so no model can be built from it")
    return checkpoint.texts[name]
