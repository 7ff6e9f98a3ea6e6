import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from parallax.checkpoint.catalogue import Report, log_warning
from parallax.checkpoint.locate import find_checkpoint
from parallax.checkpoint.manifest import SHARDED_FORMAT, DamagedCheckpointError, Manifest, read_manifest
from parallax.checkpoint.piece_reader import AssembledTensors, PieceReader
from parallax.checkpoint.tensor_file import load_tensors
from parallax.checkpoint.write import MODEL_FILE, OPTIMIZER_FILE, STATE_FILE, TENSORS_SUFFIX
from parallax.errors import CheckpointError

_NAMES_SHOWN = 3


@dataclass(frozen=True)
class Checkpoint:
    """The content of a checkpoint folder."""

    path: Path
    step: int
    weights: Mapping[str, Tensor]
    """By unsharded parameter name; tied names are the same tensor, or stand once."""
    optimizer: Mapping[str, Tensor]
    """See `restore_optimizer`. What several ranks saved is put together when it is asked for."""
    state: dict[str, Any]
    texts: dict[str, str]
    """File name -> content, such as config.yaml and tokenizer.json."""


def read_checkpoint(
    path: str | Path,
    *,
    map_location: torch.device | str = "cpu",
    verify: bool = True,
    report: Report = log_warning,
) -> Checkpoint:
    """Reads a checkpoint.

    Args:
        path: a checkpoint, a run folder, or RUN/best; see `find_checkpoint`.
        map_location: device of the tensors. On the CPU they are mapped, not read, until they are touched.
        verify: False skips comparing a checkpoint that was verified a moment ago with its manifest.
        report: told about every damaged checkpoint that is passed over.

    Raises:
        CheckpointError: nothing there, damaged (naming the file), or in a newer format.
    """
    folder = find_checkpoint(path, verify=verify, report=report)
    manifest = read_manifest(folder)
    texts = [name for name in manifest.files if name != STATE_FILE and not name.endswith(TENSORS_SUFFIX)]
    try:
        weights, optimizer = _read_tensors(folder, manifest, map_location)
        return Checkpoint(
            path=folder,
            step=manifest.step,
            weights=weights,
            optimizer=optimizer,
            state=json.loads((folder / STATE_FILE).read_bytes()),
            texts={name: (folder / name).read_bytes().decode() for name in texts},
        )
    except (OSError, ValueError) as error:
        raise DamagedCheckpointError(folder, str(error)) from None


def _read_tensors(
    folder: Path, manifest: Manifest, device: torch.device | str
) -> tuple[Mapping[str, Tensor], Mapping[str, Tensor]]:
    if manifest.format_version < SHARDED_FORMAT:
        return load_tensors(folder / MODEL_FILE, device), load_tensors(folder / OPTIMIZER_FILE, device)
    reader = PieceReader(folder)
    moments = [name for name in reader.tensors if "/" in name]
    weights = [name for name in reader.tensors if "/" not in name]
    return AssembledTensors(reader, weights, device), AssembledTensors(reader, moments, device)


def load_weights(
    module: nn.Module,
    weights: Mapping[str, Tensor],
    *,
    source: str | Path,
    whole: nn.Module | None = None,
    put: Callable[[str, nn.Parameter, Tensor], None] | None = None,
) -> None:
    """Copies weights into a module, in place and cast to the module's types; tied ones stay tied.

    Names must match exactly, except that a weight which stands under several names in the module may come
    under one of them or several. Nothing is changed unless everything fits.

    Args:
        module: has memory (is not on the meta device).
        weights: by name.
        source: where they come from, for messages.
        whole: the unsharded model, on the meta device, where the module holds a part of one only.
        put: writes a whole weight into a parameter of such a part.

    Raises:
        CheckpointError: a name is missing or unexpected, a shape differs, or weights that the module ties
            differ from each other.
    """
    problems = _mismatches((whole or module).state_dict(keep_vars=True), weights)
    if problems:
        raise CheckpointError(
            f"{source} holds a model of another architecture: {'; '.join(problems)}; "
            f"use the configuration it was trained with, or another checkpoint"
        )
    targets = module.state_dict(keep_vars=True)
    with torch.no_grad():
        for name in weights:
            if name not in targets:
                continue
            if targets[name].is_meta:
                raise ValueError(f"{name} is on the meta device; materialize the model before loading weights")
            if put is None:
                targets[name].copy_(weights[name])
            else:
                put(name, targets[name], weights[name])


def _mismatches(targets: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> list[str]:
    """What keeps `weights` from fitting into `targets`, in words."""
    given = {id(targets[name]) for name in weights if name in targets}
    missing = [name for name, target in targets.items() if id(target) not in given]
    unexpected = [name for name in weights if name not in targets]
    shared = [name for name in weights if name in targets]
    reshaped = [
        f"{name} is {_shape(weights[name])} there and {_shape(targets[name])} here"
        for name in shared
        if weights[name].shape != targets[name].shape
    ]
    problems = []
    if missing:
        problems.append(f"{len(missing)} weights missing ({_first(missing)})")
    if unexpected:
        problems.append(f"{len(unexpected)} unexpected ({_first(unexpected)})")
    if reshaped:
        problems.append(f"{len(reshaped)} of another shape ({_first(reshaped)})")
    return problems or _untied(targets, weights, shared)


def _untied(targets: Mapping[str, Tensor], weights: Mapping[str, Tensor], names: Sequence[str]) -> list[str]:
    first_names: dict[int, str] = {}
    for name in names:
        first = first_names.setdefault(id(targets[name]), name)
        # Nothing is asked for twice that is there once: `weights` may put a tensor together when it is asked for.
        if first != name and not torch.equal(weights[first], weights[name]):
            return [f"{first} and {name} differ there and are one weight here"]
    return []


def _shape(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "a scalar"


def _first(names: Sequence[str]) -> str:
    more = ", …" if len(names) > _NAMES_SHOWN else ""
    return ", ".join(names[:_NAMES_SHOWN]) + more
