from typing import Any

import torch

from parallax.attention.select import choose_backend
from parallax.config.batch import accumulation_on_ranks
from parallax.config.models.base import ModelConfig
from parallax.config.models.choice import DEFAULT_ARCHITECTURE
from parallax.metrics.flops import parameter_counts
from parallax.parallel.build import resolve_shared
from parallax.train.display import format_count, format_seconds
from parallax.train.freeze import describe_frozen
from parallax.train.goal import reached_before
from parallax.train.schedule import warmup_steps
from parallax.train.session import Session


def describe_start(session: Session, changed: dict[str, tuple[Any, Any]]) -> list[str]:
    """What a person should know before the first step, in lines of at most 80 columns where values allow."""
    config, sources = session.config, session.sources
    total = parameter_counts(config.model).total
    choice = choose_backend(config.model.attention, config.runtime.attention_backend, session.engine.device)
    lines = [
        f"run      {session.folder.path}",
        f"model    {format_count(total)} parameters: {describe_model(config.model)}",
        *_describe_data(session),
        f"batch    {config.train.global_batch} windows of {config.model.max_seq_len} tokens, "
        f"{accumulation_on_ranks(config.train.global_batch, config.train.micro_batch, session.world.dp[1])} "
        f"micro-batch(es); "
        f"{sources.loader.samples_per_epoch:,} windows an epoch",
        *_describe_ranks(session),
        *([f"engine   {session.engine.description}"] if session.engine.description else []),
        f"device   {_describe_device(session)}",
        f"kernel   attention {choice.backend.name} ({choice.reason})",
        f"peak     {_describe_peak(session)}",
    ]
    frozen = describe_frozen(session.engine.model)
    lines += [f"frozen   {frozen}"] if frozen else []
    lines += [f"changed  {key}: {old} -> {new}" for key, (old, new) in changed.items()]
    warmup = warmup_steps(session.total_steps, config.optim)
    if warmup >= session.total_steps:
        lines.append(f"warning  {warmup:,} warm-up steps: none of {session.total_steps:,} has the full optim.lr")
    step = session.progress.step
    if reached_before(session):
        lines.append(f"complete at step {step:,}, where train.goal was reached")
    elif step >= session.total_steps:
        lines.append(
            f"complete at step {step:,}; for more, raise train.max_steps; to start anew, choose another run.dir"
        )
    elif step:
        lines.append(f"resume   after step {step:,}, from {session.last_checkpoint()}")
    return lines


def describe_end(session: Session, complete: bool) -> list[str]:
    """What happened and what can be done next."""
    best = session.progress.best_val_loss
    where = session.folder.path
    took = format_seconds(session.meter.seconds)
    if not complete:
        return [
            f"stopped after step {session.progress.step:,}; saved as {session.last_checkpoint()}",
            "next     the same command goes on from there",
        ]
    measured = f"; best validation loss {best:.4f} nats a token" if best is not None else ""
    return [
        f"done     {session.progress.step:,} steps, {format_count(session.progress.tokens)} tokens "
        f"in {took}{measured}",
        f"saved    {session.last_checkpoint()}",
        f'next     parallax generate {where} --prompt "The "',
        f"         parallax eval {where}",
        f"         parallax curve {where}",
    ]


def describe_model(model: ModelConfig) -> str:
    """2 tracks x 4 layers x 2 passes with swap, 128 wide; other architectures than dual_track say their name."""
    tracks = f"{model.num_tracks} track{'s' if model.num_tracks > 1 else ''}"
    passes = f"{model.num_loops} pass{'es' if model.num_loops > 1 else ''}"
    swap = " with swap" if model.num_swaps and model.num_tracks > 1 else ""
    name = "" if model.architecture == DEFAULT_ARCHITECTURE else f"{model.architecture}: "
    return f"{name}{tracks} x {model.layers_per_track} layers x {passes}{swap}, {model.hidden_size} wide"


def _describe_data(session: Session) -> list[str]:
    """Tokens of the corpus, or a line for each of several: its share, tokens, and passes over it in all."""
    sources, loader = session.sources, session.sources.loader
    apart = "; documents apart" if session.config.data.document_mask else ""
    if len(sources.mixed) == 1:
        train, val = sources.corpus.meta.train, sources.validation
        return [
            f"data     {format_count(train.tokens)} training tokens, "
            f"{format_count(val.num_tokens) if val else 'no'} validation tokens "
            f"({sources.corpus.meta.tokenizer}){apart}"
        ]
    lines = [f"data     {len(sources.mixed)} sources ({sources.corpus.meta.tokenizer}){apart}"]
    in_all = loader.source_counts(session.total_steps * session.config.train.global_batch)
    for source, samples, windows in zip(sources.mixed, in_all, loader.num_windows, strict=True):
        meta = source.corpus.meta
        lines.append(
            f"source   {float(source.share):6.1%} {source.name}: {format_count(meta.train.tokens)} tokens, "
            f"{samples / windows:.2f} passes"
        )
    return [*lines, f"epoch    one pass over {sources.mixed[0].name}"]


def _describe_ranks(session: Session) -> list[str]:
    """How several ranks are arranged; nothing for one."""
    mesh = session.world.mesh
    if mesh is None:
        return []
    layout, shared = mesh.layout, resolve_shared(session.config.parallel.shared)
    axes = f"track {layout.track} x dp_replicate {layout.dp_replicate} x dp_shard {layout.dp_shard}"
    return [
        f"ranks    {layout.world_size}: {axes}" + (f"; embedding and head: {shared}" if layout.track > 1 else "")
    ]


def _describe_device(session: Session) -> str:
    engine = session.engine
    threads = torch.get_num_threads()
    name = f"cpu ({threads} thread{'' if threads == 1 else 's'})"
    if engine.device.type == "cuda":
        name = torch.cuda.get_device_name(engine.device)
    return f"{name}; {engine.precision.name} ({engine.precision.reason})"


def _describe_peak(session: Session) -> str:
    rate = session.peak.flops_per_second
    return f"{rate / 1e9:,.0f} GFLOP/s ({session.peak.source})" if rate else f"n/a ({session.peak.source})"
