from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec

import torch
from rich.console import Console

from evaluation.bench.figures import Timing, ratio_of, time_interleaved
from evaluation.bench.ours import Trainer, random_windows
from evaluation.bench.peers import LossOf, PeerTrainer, build_llama, transformers_loss
from evaluation.dual_track import as_dual_track
from evaluation.gpu_proof.compiler import why_no_compiler
from evaluation.gpu_proof.rows import Row, impossible
from evaluation.gpu_proof.setting import Setting
from parallax.config.load import load_config
from parallax.config.run import RunConfig
from parallax.metrics.flops import train_flops_per_token
from parallax.metrics.footprint import memory_estimate
from parallax.metrics.peak import Peak, measure_peak, mfu

_USABLE = 0.4
"""Of the free memory, for ours; the peer keeps more of each token, and both are there at once."""


@dataclass(frozen=True)
class Shape:
    """What is timed: a configuration, the windows of a step, steps a call, counted calls."""

    config: str
    micro_batch: int
    steps: int
    rounds: int
    whole_peer: bool
    """Whether the peer is compiled as a whole, as its users do, or block by block, which takes less time."""


SHAPES = (Shape("reference", 32, 4, 5, True), Shape("base", 8, 3, 5, False))
QUICK_SHAPES = (Shape("overfit", 2, 1, 2, False),)


def check_speed(setting: Setting) -> Iterator[Row]:
    """Training tokens/s and MFU in bf16, eager and compiled, beside transformers' Llama of equal blocks."""
    for shape in QUICK_SHAPES if setting.quick else SHAPES:
        config = load_config(
            f"configs/{shape.config}.yaml",
            [
                f"train.global_batch={shape.micro_batch}",
                f"train.micro_batch={shape.micro_batch}",
                "train.activation_checkpointing=false",
            ],
        )
        why_not = _why_not(setting, config)
        if why_not is not None:
            yield impossible(shape.config, why_not)
            continue
        yield from _time(setting, shape, config)


def _why_not(setting: Setting, config: RunConfig) -> str | None:
    if not setting.on_gpu:
        return None
    needed = memory_estimate(config.model, config.train.micro_batch, "bf16", False).total_bytes
    free, _ = torch.cuda.mem_get_info(setting.device)
    if needed > _USABLE * free:
        return f"needs {needed / 2**30:.1f} GiB beside a peer; {free / 2**30:.1f} GiB are free"
    return None


def _time(setting: Setting, shape: Shape, config: RunConfig) -> Iterator[Row]:
    contenders = dict(_contenders(setting, shape, config))
    timings = time_interleaved(contenders, shape.rounds, Console(stderr=True))
    peak = measure_peak(setting.device, torch.bfloat16)
    if find_spec("transformers") is None:
        yield impossible(f"{shape.config}: peer", "transformers is not installed")
    yield from figures(shape, config, timings, peak)


def _contenders(setting: Setting, shape: Shape, config: RunConfig) -> Iterator[tuple[str, Callable[[], None]]]:
    windows = random_windows(config)
    there = windows.to(setting.device)
    forms = ["eager"] if why_no_compiler(setting.device) else ["eager", "compiled"]
    for form in forms:
        ours = Trainer(config, "bf16", form == "compiled", setting.device)
        yield f"parallax {form}", _repeated(setting, shape.steps, partial(ours.step, windows))
        if find_spec("transformers") is None:
            continue
        model = build_llama(as_dual_track(config.model)).to(setting.device)
        loss = _peer_loss(model, form == "compiled", whole=shape.whole_peer)
        peer = PeerTrainer(model, loss, config.optim, torch.bfloat16)
        yield f"llama {form}", _repeated(setting, shape.steps, partial(peer.step, there))


def _peer_loss(model: torch.nn.Module, compiled: bool, *, whole: bool) -> LossOf:
    if compiled and not whole:
        for layer in model.model.layers:  # type: ignore[union-attr]
            layer.compile()
        return transformers_loss(model, False)
    return transformers_loss(model, compiled)


def _repeated(setting: Setting, steps: int, step: Callable[[], float]) -> Callable[[], None]:
    def call() -> None:
        for _ in range(steps):
            step()
        setting.synchronize()

    return call


def figures(shape: Shape, config: RunConfig, timings: dict[str, Timing], peak: Peak) -> Iterator[Row]:
    """Tokens/s and MFU of every contender, then ours over the peer's, round by round."""
    length = config.model.max_seq_len
    tokens = shape.steps * config.train.micro_batch * length
    # Equal blocks, heads and vocabulary: the peer does the same operations a token.
    flops = train_flops_per_token(config.model, length)
    blocks = config.model.executed_blocks
    for name, timing in timings.items():
        rate = tokens / timing.median
        used = mfu(flops, rate, peak)
        known = f", MFU {used:.1%}" if used is not None else ""
        yield Row(
            f"{shape.config}, {blocks} blocks, {config.train.micro_batch} x {length} tokens: {name}",
            f"{rate:,.0f} tokens/s{known}",
            reason=f"first call {timing.first_seconds:.0f} s; peak: {peak.source}",
        )
    for form in ("eager", "compiled"):
        if f"llama {form}" in timings:
            ratio = ratio_of(timings, f"llama {form}", f"parallax {form}")
            how = "" if form == "eager" or shape.whole_peer else "; the peer compiled block by block, as ours is"
            yield Row(f"{shape.config}: parallax over llama, {form}", f"{ratio:.2f}x", reason=f"interleaved{how}")
