from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from parallax.checkpoint.catalogue import Report, log_warning
from parallax.checkpoint.load import Checkpoint, load_weights, read_checkpoint
from parallax.checkpoint.locate import find_checkpoint
from parallax.checkpoint.manifest import MANIFEST_FILE, read_manifest
from parallax.checkpoint.model_folder import is_model_folder, read_model_folder, read_texts
from parallax.config.load import check_config
from parallax.config.models.base import ModelConfig
from parallax.config.run import RunConfig
from parallax.config.yaml_strict import parse_yaml
from parallax.errors import CheckpointError, ConfigError
from parallax.model.decoder import Decoder
from parallax.model.registry import build_model, materialize

CONFIG_FILE = "config.yaml"
TOKENIZER_FILE = "tokenizer.json"


@dataclass(frozen=True)
class SavedModel:
    """What a checkpoint or a model folder says of its model."""

    path: Path
    step: int
    """Optimizer steps that the weights have seen here; 0 where nobody counted."""
    model_config: ModelConfig
    run_config: RunConfig | None
    """The resolved configuration of the run that trained it; None: it came without one."""
    weights: Mapping[str, Tensor]
    """By parameter name."""
    state: dict[str, Any]
    """The run's state at that step; empty without a run."""
    texts: Mapping[str, str]
    """The tokenizer and what goes with it, by file name."""


@dataclass(frozen=True)
class LoadedModel:
    """A model as it was saved, and what belongs to it."""

    model: Decoder
    """In evaluation mode."""
    model_config: ModelConfig
    """What it is made of."""
    run_config: RunConfig | None
    """The resolved configuration of the run that trained it; None: it came without one."""
    tokenizer_json: str | None
    """Text of the tokenizer whose token ids it reads; None: it came without one."""
    state: dict[str, Any]
    """The run's state at that step; empty without a run."""
    path: Path
    """The checkpoint's folder."""

    @classmethod
    def of(cls, saved: SavedModel, model: Decoder) -> Self:
        """A model that has been given the saved weights, with what was saved beside them."""
        return cls(
            model=model.eval(),
            model_config=saved.model_config,
            run_config=saved.run_config,
            tokenizer_json=saved.texts.get(TOKENIZER_FILE),
            state=saved.state,
            path=saved.path,
        )


def load_model(
    path: str | Path,
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype | None = None,
    attention_backend: str = "auto",
    report: Report = log_warning,
) -> LoadedModel:
    """Builds the model of a checkpoint or model folder from the configuration in it and loads its weights.

    Args:
        path: a checkpoint, a run folder, RUN/best, or a model folder; see `find_checkpoint`.
        device: where the model will live.
        dtype: type of the weights; None: fp32, as they are trained.
        attention_backend: see `build_model`.
        report: told about every damaged checkpoint that is passed over.

    Raises:
        CheckpointError: no good checkpoint there, or one that this version cannot build.
        BackendError: the attention backend cannot run on `device`.
    """
    saved = read_model(path, report=report)
    model = build_model(saved.model_config, attention_backend=attention_backend, device=device).to(dtype=dtype)
    materialize(model, device)
    load_weights(model, saved.weights, source=saved.path)
    return LoadedModel.of(saved, model)


def read_model(path: str | Path, *, report: Report = log_warning) -> SavedModel:
    """Reads a model of any kind, its weights on the CPU, mapped until they are touched.

    What the folder holds decides: a config.json makes it a model folder, else it is a run's checkpoint.

    Args:
        path: see `find_checkpoint`.
        report: told about every damaged checkpoint that is passed over.

    Raises:
        CheckpointError: nothing there, damaged, or a model that this version cannot build.
    """
    folder = find_checkpoint(path, report=report)
    if not is_model_folder(folder):
        return model_of_run(read_checkpoint(folder, verify=False, report=report))
    config, weights = read_model_folder(folder)
    return SavedModel(
        path=folder,
        step=read_manifest(folder).step if (folder / MANIFEST_FILE).exists() else 0,
        model_config=config,
        run_config=None,
        weights=weights,
        state={},
        texts=read_texts(folder),
    )


def model_of_run(checkpoint: Checkpoint) -> SavedModel:
    """The model in a run's checkpoint.

    Raises:
        CheckpointError: a text is missing, or the configuration is one that this version does not understand.
    """
    config = checkpoint_config(checkpoint)
    return SavedModel(
        path=checkpoint.path,
        step=checkpoint.step,
        model_config=config.model,
        run_config=config,
        weights=checkpoint.weights,
        state=checkpoint.state,
        texts={TOKENIZER_FILE: _text(checkpoint, TOKENIZER_FILE)},
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
