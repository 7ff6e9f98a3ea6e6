import torch

from parallax.checkpoint.load import load_weights
from parallax.checkpoint.model import LoadedModel, read_model
from parallax.config.layout import Layout
from parallax.errors import ConfigError
from parallax.model.registry import build_model, materialize
from parallax.parallel.build import build_part
from parallax.parallel.mesh import build_mesh
from parallax.parallel.placement import Placement
from parallax.runtime.process_group import join
from parallax.runtime.ranks import Ranks


def load_spread(checkpoint: str, ranks: Ranks, device: torch.device, dtype: torch.dtype) -> LoadedModel:
    """A trained model whose tracks several ranks share: each loads its own, and its rows of embedding and head.

    Collective, as every forward of the model then is; all ranks get the same logits. The ranks stay joined.

    Args:
        checkpoint: see `find_checkpoint`.
        ranks: this process among the others.
        device: where it computes.
        dtype: of the weights.

    Raises:
        ConfigError: the ranks cannot share the tracks equally.
        CheckpointError: no usable model there.
        JoinError: the others cannot be reached.
    """
    saved = read_model(checkpoint)
    config = saved.model_config
    if config.num_tracks % ranks.world_size:
        most = min(config.num_tracks, ranks.world_size)
        possible = max(count for count in range(1, most + 1) if config.num_tracks % count == 0)
        raise ConfigError(
            f"{ranks.world_size} ranks cannot share the {config.num_tracks} track(s) of {saved.path} equally; "
            f"start {possible}"
        )
    join(ranks, device)
    mesh = build_mesh(Layout(track=ranks.world_size, dp_replicate=1, dp_shard=1), device)
    model = materialize(build_part(config, mesh=mesh, device=device).to(dtype=dtype), device)
    placement = Placement.of(model, ranks.world_size)
    load_weights(model, saved.weights, source=saved.path, whole=build_model(config), put=placement.put)
    return LoadedModel.of(saved, model)
