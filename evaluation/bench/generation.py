import time
from collections.abc import Callable

import torch
from rich.console import Console
from torch import Tensor

from evaluation.bench.figures import Figure, Timing, ratio_of, time_interleaved
from evaluation.bench.peers import build_llama
from evaluation.dual_track import as_dual_track
from parallax.config.run import RunConfig
from parallax.generate.decode import generate
from parallax.generate.sampling import SamplingOptions
from parallax.metrics.flops import block_matrix_parameters
from parallax.model.decoder import Decoder
from parallax.model.registry import build_model, materialize

_PROMPT_TOKENS = 16
_ROWS = 16


def bench_generation(config: RunConfig, new_tokens: int, rounds: int, console: Console) -> list[Figure]:
    """Tokens/s of greedy decoding from a short prompt: cached, compiled, 16 rows, and without a cache."""
    model = materialize(build_model(config.model), "cpu", seed=config.seed).eval()
    llama = build_llama(as_dual_track(config.model)).eval()
    prompt = torch.randint(
        config.model.vocab_size, (1, _PROMPT_TOKENS), generator=torch.Generator().manual_seed(0)
    )
    contenders: dict[str, Callable[[], object]] = {
        "parallax eager": lambda: _write(model, prompt, 1, new_tokens, compiled=False),
        "parallax compiled": lambda: _write(model, prompt, 1, new_tokens, compiled=True),
        "llama": lambda: _write_llama(llama, prompt, new_tokens),
        "parallax eager x16": lambda: _write(model, prompt, _ROWS, new_tokens, compiled=False),
        "parallax compiled x16": lambda: _write(model, prompt, _ROWS, new_tokens, compiled=True),
        "llama x16": lambda: _write_llama(llama, prompt.expand(_ROWS, -1), new_tokens),
    }
    console.rule(f"generation: {new_tokens} tokens, fp32", align="left")
    timings = time_interleaved(contenders, rounds, console)
    same = contenders["parallax eager"]() == contenders["parallax compiled"]()
    return [
        *_figures(config, timings, new_tokens, same),
        _without_cache(model, config, timings["parallax eager"], new_tokens),
    ]


def _figures(config: RunConfig, timings: dict[str, Timing], new_tokens: int, same: bool) -> list[Figure]:
    def rate(name: str, rows: int = 1) -> str:
        return f"{rows * new_tokens / timings[name].median:,.1f} tok/s"

    weights = 4 * config.model.executed_blocks * block_matrix_parameters(config.model)
    weights += 4 * config.model.vocab_size * config.model.hidden_size
    bandwidth = _read_bandwidth()
    floor = f"floor {bandwidth / weights:,.0f} tok/s: {weights / 1e6:,.0f} MB at {bandwidth / 1e9:.1f} GB/s"
    tokens = "same tokens" if same else "OTHER TOKENS"
    figures = []
    for name, rows in (("parallax eager", 1), ("parallax compiled", 1)):
        ratio = ratio_of(timings, "llama", name)
        figures.append(
            Figure(f"generation, {name}", rate(name, rows), f"{rate('llama')} (llama)", ratio, "1.5x", floor)
        )
    ratio = ratio_of(timings, "parallax eager", "parallax compiled")
    first = f"first call {timings['parallax compiled'].first_seconds:.0f} s"
    figures.append(
        Figure(
            f"  compiled against eager, {tokens}",
            rate("parallax compiled"),
            rate("parallax eager"),
            ratio,
            "",
            first,
        )
    )
    for name in ("parallax eager x16", "parallax compiled x16"):
        ratio = ratio_of(timings, "llama x16", name)
        figures.append(
            Figure(f"generation, {name}", rate(name, _ROWS), f"{rate('llama x16', _ROWS)} (llama)", ratio)
        )
    return figures


def _write(model: Decoder, prompt: Tensor, rows: int, new_tokens: int, *, compiled: bool) -> list[list[int]]:
    written = generate(
        model,
        [prompt[0].tolist()] * rows,
        max_new_tokens=new_tokens,
        options=SamplingOptions(temperature=0),
        seed=0,
        eos_id=None,
        compile_step=compiled,
    )
    return [row.tokens for row in written]


def _write_llama(model: torch.nn.Module, prompt: Tensor, new_tokens: int) -> Tensor:
    with torch.inference_mode():
        written: Tensor = model.generate(  # type: ignore[operator]
            prompt,
            attention_mask=torch.ones_like(prompt),
            max_new_tokens=new_tokens,
            min_new_tokens=new_tokens,
            do_sample=False,
            pad_token_id=0,
        )
    return written


@torch.inference_mode()
def _without_cache(model: Decoder, config: RunConfig, cached: Timing, new_tokens: int) -> Figure:
    """Every token by a forward over all before it, at evenly spaced lengths: their mean stands for all."""
    full = config.model.max_seq_len
    seconds = []
    for length in range(full // 8, full + 1, full // 8):
        tokens = torch.zeros(1, length, dtype=torch.long)
        start = time.perf_counter()
        model(tokens, last=torch.tensor([length - 1]))
        seconds.append(time.perf_counter() - start)
    per_token = sum(seconds) / len(seconds)
    ratio = per_token / (cached.median / new_tokens)
    return Figure(
        f"  cached against uncached, up to {full} tokens",
        f"{new_tokens / cached.median:,.1f} tok/s",
        f"{1 / per_token:,.1f} tok/s (parallax without cache)",
        ratio,
        "10x",
    )


def _read_bandwidth() -> float:
    """Bytes a second that a reduction over 512 MB reads, the best of five."""
    block = torch.zeros(1 << 27)
    best = float("inf")
    for _ in range(5):
        start = time.perf_counter()
        block.sum()
        best = min(best, time.perf_counter() - start)
    return block.numel() * block.element_size() / best
