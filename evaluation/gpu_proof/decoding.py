import time
from collections.abc import Iterator

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
    """The compiled decoding step: eager's tokens in fp32, and tokens/s of both at 1 and 16 rows (quick: 3)."""
    why_not = why_no_compiler(setting.device)
    if why_not is not None:
        yield impossible("compiled decoding step", why_not)
        return
    # All blocks are in one graph, whose compiling grows with them: to be quick is to have one, of one layer.
    sizes = {"num_layers": 1} if setting.quick else {}
    small = _build(small_config(quick=setting.quick, max_seq_len=32, **sizes), setting, torch.float32)
    yield _same_tokens(small)
    if setting.quick:
        yield _rates(setting, small, len(PROMPTS), 16)
        return
    reference = load_config("configs/reference.yaml").model
    for rows in (1, 16):
        model = _build(reference, setting, torch.bfloat16 if setting.on_gpu else torch.float32)
        yield _rates(setting, model, rows, 128)


def _same_tokens(model: Decoder) -> Row:
    """Rows of unequal length, some of which outgrow the window."""
    eager, compiled = (write(model, PROMPTS, 40, compiled=compiled) for compiled in (False, True))
    return equal(
        f"fp32, {len(PROMPTS)} rows: tokens as eager's, of {sum(map(len, eager))}",
        matching(eager, compiled),
        sum(map(len, eager)),
    )


def _rates(setting: Setting, model: Decoder, rows: int, new_tokens: int) -> Row:
    prompts = [[1, 2, 3, 4]] * rows
    first = _timed(setting, model, prompts, new_tokens, compiled=True)[0]
    seconds = {
        name: min(_timed(setting, model, prompts, new_tokens, compiled=name == "compiled")[0] for _ in range(2))
        for name in ("eager", "compiled")
    }
    rate = {name: rows * new_tokens / taken for name, taken in seconds.items()}
    dtype = next(model.parameters()).dtype
    return Row(
        f"{str(dtype).removeprefix('torch.')}, {rows} rows: tokens/s compiled, eager",
        f"{rate['compiled']:,.0f}, {rate['eager']:,.0f} ({rate['compiled'] / rate['eager']:.2f}x)",
        reason=f"{new_tokens} tokens a row; the first call took {first:.0f} s",
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


def _build(config: ModelConfig, setting: Setting, dtype: torch.dtype) -> Decoder:
    model = build_model(config, device=setting.device).to(dtype=dtype)
    return materialize(model, setting.device, seed=0).eval()
