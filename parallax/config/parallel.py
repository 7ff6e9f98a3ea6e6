from typing import Literal

from parallax.config.section import PositiveInt, Section


class ParallelConfig(Section):
    """How a run is spread over its ranks: track x dp_replicate x dp_shard is the world size."""

    track: PositiveInt = 1
    """Ranks that share the tracks of one model; divides `model.num_tracks`."""
    dp_shard: PositiveInt = 1
    """Ranks that each hold a part of weights, gradients and optimizer state (FSDP2); 1: whole on every rank."""
    dp_replicate: PositiveInt | None = None
    """Copies of the sharded model, each of which reads other samples; null: as many as the world size leaves."""
    order: Literal["track_inside", "track_across"] = "track_inside"
    """Whether neighbouring ranks, of one node, share tracks; or shards, and the track axis runs across nodes."""
    shared: Literal["auto", "vocab_split", "copy_reduce"] = "auto"
    """Embedding and head along the track axis: rows divided, or whole on every rank; auto: divided."""
    reshard_after_forward: Literal[True, False, "auto"] = "auto"
    """Whether FSDP2 frees gathered weights after each pass; auto: with one pass only, as tied ones reuse them."""
    overlap: bool = False
    """Cut a micro-batch in two halves, one of which computes while the other's tracks meet."""
