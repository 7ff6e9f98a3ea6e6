from typing import Literal

from parallax.config.section import PositiveInt, Section, UserPath


class ParallelConfig(Section):
    """How a run is spread over its ranks: track x dp_replicate x dp_shard is the world size."""

    track: PositiveInt = 1
    """Ranks that share the tracks of one model; divides `model.num_tracks`."""
    engine: Literal["auto", "native", "deepspeed"] = "auto"
    """Who steps: PyTorch, or DeepSpeed; auto: DeepSpeed where its launcher, or accelerate's plugin for it, started
    the run."""
    dp_shard: PositiveInt | None = None
    """Ranks that each hold a part of weights, gradients and optimizer state (FSDP2); 1: whole on every rank;
    null: 1, or under accelerate's FSDP plugin as many as the world size leaves."""
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


class DeepSpeedConfig(Section):
    """DeepSpeed's ZeRO over the data-parallel ranks, where `parallel.engine` is deepspeed."""

    zero_stage: Literal[0, 1, 2, 3] | None = None
    """What ranks divide: 1 optimizer states, 2 also gradients, 3 also weights; null: as `settings` or the launcher
    says, else 2."""
    offload_optimizer: bool | None = None
    """Whether optimizer states live, and are updated, on the host; null: as `settings` says, else false."""
    offload_parameters: bool | None = None
    """Whether weights live on the host, with stage 3; null: as `settings` says, else false."""
    settings: UserPath | None = None
    """JSON file of DeepSpeed's own settings, such as `configs/deepspeed/zero2.json`, for what has no key here."""
