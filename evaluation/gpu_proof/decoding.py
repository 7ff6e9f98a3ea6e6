import time
from collections.abc import Iterator
from typing import Any

import torch

from evaluation.gpu_proof.compiler import why_no_compiler
from evaluation.gpu_proof.rows import Row, equal, impossible
from evaluation.gpu_proof.setting import Setting
from evaluation.gpu_proof.small_model import small_config
from parallax.config.load import load_config
from parallax.config.models.base import ModelConfig
from parallax.generate.decode import generate
from parallax.generate.sampling import SamplingOptions
from parallax.model.decoder import Decoder
from parallax.model.registry import build_model, materialize

PROMPTS = [[3], [5, 1, 4, 1, 5, 9, 2], [2, 7, 1, 8]]
_GREEDY = SamplingOptions(temperature=0)


def check_decoding(setting: Setting) -> Iterator[Row]:
    """The compiled decoding step: eager's tokens in fp32, and tokens/s of both at 1 and 16 rows."""
    why_not = why_no_compiler(setting.device)
    if why_not is not None:
        yield impossible("compiled decoding step", why_not)
        return
    yield _same_tokens(setting)
    for rows in (1,) if setting.quick else (1, 16):
        yield _rates(setting, rows)


def _same_tokens(setting: Setting) -> Row:
    """Rows of unequal length, some of which outgrow the window."""
    config = _small(setting, max_seq_len=32)
    model = _build(config, setting, torch.float32)
    eager, compiled = (write(model, PROMPTS, 40, compiled=compiled) for compiled in (False, True))
    return equal(
        f"fp32, {len(PROMPTS)} rows: tokens as eager's, of {sum(map(len, eager))}",
        matching(eager, compiled),
        sum(map(len, eager)),
    )


def _rates(setting: Setting, rows: int) -> Row:
    dtype = torch.bfloat16 if setting.on_gpu else torch.float32
    config: ModelConfig = _small(setting)
    new_tokens = 16
    if not setting.quick:
        config, new_tokens = load_config("configs/reference.yaml").model, 128
    model = _build(config, setting, dtype)
    prompts = [[1, 2, 3, 4]] * rows
    first = _timed(setting, model, prompts, new_tokens, compiled=True)[0]
    seconds = {
        name: min(_timed(setting, model, prompts, new_tokens, compiled=name == "compiled")[0] for _ in range(2))
        for name in ("eager", "compiled")
    }
    rate = {name: rows * new_tokens / taken for name, taken in seconds.items()}
    return Row(
        f"{str(dtype).removeprefix('torch.')}, {rows} rows: tokens/s compiled, eager",
        f"{rate['compiled']:,.0f}, {rate['eager']:,.0f} ({rate['compiled'] / rate['eager']:.2f}x)",
        reason=f"{new_tokens} tokens a row; compiling took {first:.0f} s",
    )


def _timed(
    setting: Setting, model: Decoder, prompts: list[list[int]], new_tokens: int, *, compiled: bool
) -> tuple[float, list[list[int]]]:
    setting.synchronize()
    start = time.perf_counter()
    written = write(model, prompts, new_tokens, compiled=compiled)
    setting.synchronize()
    return time.perf_counter() - start, written


def write(model: Decoder, prompts: list[list[int]], new_tokens: int, *, compiled: bool) -> list[list[int]]:
    """The new tokens of each row, greedy."""
    written = generate(
        model, prompts, max_new_tokens=new_tokens, options=_GREEDY, seed=0, eos_id=None, compile_step=compiled
    )
    return [row.tokens for row in written]


def matching(first: list[list[int]], second: list[list[int]]) -> int:
    """How many tokens of two texts, row by row, are the same until they part."""
    count = 0
    for one, other in zip(first, second, strict=True):
        for a, b in zip(one, other, strict=True):
            if a != b:
                break
            count += 1
    return count


def _small(setting: Setting, **changes: Any) -> ModelConfig:
    """One layer where it must be quick: all blocks are in one graph, whose compiling grows with them."""
    return small_config(quick=setting.quick, **({"num_layers": 1} if setting.quick else {}), **changes)


def _build(config: ModelConfig, setting: Setting, dtype: torch.dtype) -> Decoder:
    model = build_model(config, device=setting.device).to(dtype=dtype)
    return materialize(model, setting.device, seed=0).eval()
