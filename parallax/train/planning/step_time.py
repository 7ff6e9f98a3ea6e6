from dataclasses import dataclass

from parallax.config.layout import Layout
from parallax.config.run import RunConfig
from parallax.metrics.flops import forward_flops_per_token, train_flops_per_token
from parallax.metrics.traffic import local_parameters, step_bytes
from parallax.parallel.build import resolve_shared
from parallax.parallel.links import links_leaving_node

_LAUNCH_SECONDS = 0.5e-3
"""An assumption: what a block's kernels, or a chunk of logits, take to be started, forward and backward."""
_HOST_BYTES_PER_SECOND = 12e9
"""An assumption: PCIe 4.0 x8, to and from the host."""
_BYTES_TO_HOST = 4
"""A parameter's 16-bit gradient goes there, its 16-bit weight comes back."""


@dataclass(frozen=True)
class Machine:
    """What an estimated time is made of; stated by the user, or measured where said."""

    flops: float = 20e12
    """Peak FLOP/s of a rank."""
    utilisation: float = 0.4
    """Share of the peak that a step's products reach."""
    link_bandwidth: float = 50e9
    """Bytes a second that a rank sends inside a node."""
    node_bandwidth: float = 12.5e9
    """Bytes a second that leave a node, over all its ranks."""
    ranks_per_node: int = 8


def estimate_seconds(config: RunConfig, layout: Layout, machine: Machine) -> float:
    """Estimated seconds of an optimizer step: computing, sending, starting kernels, and the trip to the host.

        FLOPs / (rate x utilisation) + sum over the axes of max(sent / link, leaving / node) + overheads

    Nothing overlaps. Activation checkpointing computes the blocks' forward twice.
    """
    model, train = config.model, config.train
    tokens = train.global_batch * model.max_seq_len
    flops = tokens * train_flops_per_token(model, model.max_seq_len)
    if train.activation_checkpointing:
        head = 2 * model.vocab_size * model.hidden_size
        flops += tokens * (forward_flops_per_token(model, model.max_seq_len) - head)
    seconds = flops / layout.world_size / (machine.flops * machine.utilisation)
    accumulation = max(1, round(train.global_batch / (train.micro_batch * layout.dp)))
    blocks = model.executed_blocks // layout.track
    chunks = -(-train.micro_batch * model.max_seq_len // config.loss.chunk_tokens)
    seconds += accumulation * (blocks + chunks) * _LAUNCH_SECONDS
    return seconds + _sending(config, layout, machine, tokens) + _host(config, layout)


def _sending(config: RunConfig, layout: Layout, machine: Machine, tokens: int) -> float:
    sent = step_bytes(config.model, layout, resolve_shared(config.parallel.shared))
    again = config.parallel.reshard_after_forward
    regathers = layout.dp_shard > 1 and (config.model.num_loops == 1 if again == "auto" else again)
    by_axis = {"track": sent.per_token * tokens, "dp": sent.fixed * (1.5 if regathers else 1.0)}
    seconds = 0.0
    for axis, num_bytes in by_axis.items():
        if num_bytes:
            leaving = num_bytes * links_leaving_node(layout, axis, 0, machine.ranks_per_node)
            seconds += max(num_bytes / machine.link_bandwidth, leaving / machine.node_bandwidth)
    return seconds


def _host(config: RunConfig, layout: Layout) -> float:
    if config.parallel.engine != "deepspeed" or not config.deepspeed.offload_optimizer:
        return 0.0
    splits = resolve_shared(config.parallel.shared) == "vocab_split"
    held = local_parameters(config.model, layout.track, splits=splits)
    return _BYTES_TO_HOST * held / layout.dp / _HOST_BYTES_PER_SECOND
