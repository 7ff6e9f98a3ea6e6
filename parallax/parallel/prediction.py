import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from torch import nn

from parallax.config.layout import Layout
from parallax.model.block import Block
from parallax.model.decoder import Decoder
from parallax.parallel.collectives import count_parcels
from parallax.parallel.mesh import Axis
from parallax.parallel.traffic import Key, Kind, Phase, Traffic, sum_traffic

_STATISTICS = 5
"""Numbers a token that ranks with a part of the vocabulary tell each other; see `LogitStatistics`."""
_Entries = Iterator[tuple[Key, Traffic]]


@dataclass(frozen=True)
class StepShape:
    """What one rank computes in an optimizer step."""

    micro_batches: Sequence[tuple[int, int]]
    """(B, T) of each."""
    chunk_tokens: int
    """Of the loss."""
    reshards_after_forward: bool
    counter_bytes: int
    """Of one sum over ranks: 8 on a CPU, 4 elsewhere."""


def predict_step(model: Decoder, layout: Layout, step: StepShape) -> dict[Key, Traffic]:
    """What one rank must move in an optimizer step, from shapes alone.

    With M = B T D x bytes of a micro-batch, s swaps and m merges of a forward, K' track ranks, n ranks that a
    parameter's rows are sharded over (FSDP2 pads each to a multiple of n rows), P bytes of parameters so padded:
        track, copy_reduce   (s + m) M forward and as much backward: swaps, merges, and the merges' mirrors
        track, vocab_split   M more each way, and 5 numbers a token of the loss in one all-gather a chunk
        DDP                  P once, however many micro-batches
        FSDP2                P / n to each other rank per gathering, P reduced and scattered once
        HSDP                 the same, and P / n all-reduced over dp_replicate
    A gathering is one per block and one for the rest: once per step where gathered weights are kept, whatever R
    and the accumulation; else 2 R times per block and micro-batch, 2 for the rest.

    Args:
        model: this rank's part, sharded or not; parameters that are frozen move no gradient of their own.
        layout: of the ranks.
        step: what is computed.
    """
    entries = [*_counters(layout, step), *_track_axis(model, layout, step)]
    if layout.dp_shard > 1:
        entries += _sharded(model, layout, step)
    elif layout.dp > 1:
        size = sum(_bytes(p) for p in model.parameters() if p.requires_grad)
        entries.append((Key(Phase.GRADIENTS, "dp", Kind.ALL_REDUCE), Traffic(layout.dp, None, size)))
    return sum_traffic(entries)


def _counters(layout: Layout, step: StepShape) -> _Entries:
    """Valid tokens (one int64), four loss sums, and the squared norm."""
    counters = Key(Phase.COUNTERS, "dp", Kind.ALL_REDUCE)
    yield counters, Traffic(layout.dp, 2, 8 + 4 * step.counter_bytes)
    norm = Key(Phase.NORM, "model", Kind.ALL_REDUCE)
    yield norm, Traffic(layout.track * layout.dp_shard, 1, step.counter_bytes)


def _track_axis(model: Decoder, layout: Layout, step: StepShape) -> _Entries:
    config, weight = model.config, model.embedding.weight
    is_split = len(model.vocabulary.rows) < config.vocab_size
    swaps, merges = config.num_swaps, config.num_merges
    for rows, length in step.micro_batches:
        tokens = rows * length
        states = tokens * config.hidden_size * weight.element_size()
        pieces = min(model.exchange.num_pieces, rows)
        cuts = [rows // pieces + (piece < rows % pieces) for piece in range(pieces)]
        parcels = sum(count_parcels(cut * states // rows, weight.device) for cut in cuts)

        def moves(phase: Phase, kind: Kind, calls: int, size: int, axis: str = Axis.TRACK) -> tuple[Key, Traffic]:
            return Key(phase, str(axis), kind), Traffic(layout.track, calls, size)

        for phase in (Phase.FORWARD, Phase.BACKWARD):
            yield moves(phase, Kind.ALL_TO_ALL, swaps * parcels, swaps * states)
        # Forward: embedding, and each piece's merges. Backward: head, and before each piece's tracks.
        for phase in (Phase.FORWARD, Phase.BACKWARD):
            yield moves(phase, Kind.ALL_REDUCE, int(is_split) + merges * pieces, (int(is_split) + merges) * states)
        if is_split:
            chunks = math.ceil(tokens / step.chunk_tokens)
            size = _STATISTICS * tokens * max(weight.element_size(), 4)
            yield moves(Phase.FORWARD, Kind.ALL_GATHER, chunks, size)


def _sharded(model: Decoder, layout: Layout, step: StepShape) -> _Entries:
    blocks = [module for module in model.modules() if isinstance(module, Block)]
    in_blocks = {id(p) for block in blocks for p in block.parameters()}
    rest = [p for p in model.parameters() if id(p) not in in_blocks]
    passes, shards = model.config.num_loops, layout.dp_shard
    for parameters, runs in [*((list(block.parameters()), passes) for block in blocks), (rest, 1)]:
        gathered = _shard_bytes(parameters, shards)
        forward, backward = 1, 0
        if step.reshards_after_forward:
            forward = backward = runs * len(step.micro_batches)
        for phase, calls in ((Phase.FORWARD, forward), (Phase.BACKWARD, backward)):
            yield Key(phase, Axis.DP_SHARD, Kind.ALL_GATHER), Traffic(shards, calls, calls * gathered)
        reduced = _shard_bytes((p for p in parameters if p.requires_grad), shards)
        scatter = Key(Phase.GRADIENTS, Axis.DP_SHARD, Kind.REDUCE_SCATTER)
        yield scatter, Traffic(shards, 1, shards * reduced)
        replicate = Key(Phase.GRADIENTS, Axis.DP_REPLICATE, Kind.ALL_REDUCE)
        yield replicate, Traffic(layout.dp_replicate, 1, reduced)


def _shard_bytes(parameters: Iterable[nn.Parameter], shards: int) -> int:
    """One rank's rows of all of them, padded to the same number on every rank."""
    return sum(math.ceil(p.shape[0] / shards) * (_bytes(p) // p.shape[0]) for p in parameters)


def _bytes(parameter: nn.Parameter) -> int:
    """Of a parameter not sharded over data-parallel ranks."""
    return parameter.shape.numel() * parameter.element_size()
