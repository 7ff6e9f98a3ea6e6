"""Between the engines' pieces and the checkpoints of any layout and engine."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch.distributed as dist

from parallax.checkpoint.load_pieces import load_pieces, saved_tensors
from parallax.model.decoder import Decoder
from parallax.parallel.engine import Engine
from parallax.parallel.placement import Placement


def restore_weights(
    folder: Path, model: Decoder, placement: Placement, group: dist.ProcessGroup | None = None
) -> None:
    """Fills a materialised model from a verified checkpoint of any layout. Collective.

    Raises:
        CheckpointError: it is of another architecture, or cannot be read.
    """
    load_pieces(folder, dict(placement.pieces(model)), group=group)


def restore_optimizer_state(
    folder: Path, engine: Engine, extra: Mapping[str, Any], group: dist.ProcessGroup | None = None
) -> None:
    """Gives an engine's optimizer the state in a verified checkpoint of any layout and engine. Collective.

    Args:
        folder: of the checkpoint.
        engine: over the same model, with its weights.
        extra: the JSON values as saved.
        group: the ranks that hold one model between them; None: this process is alone.

    Raises:
        CheckpointError: the state is of another kind of optimizer, or of a parameter that no rank trains.
    """
    engine.load_optimizer_state(
        saved_tensors(folder), extra, lambda pieces: load_pieces(folder, pieces, group=group), source=folder
    )
