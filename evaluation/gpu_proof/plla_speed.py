from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from evaluation.bench.fla_peer import load_fla
from evaluation.gpu_proof.rows import Row, impossible
from evaluation.gpu_proof.setting import Setting
from evaluation.gpu_proof.stopwatch import median_seconds
from parallax.attention.plla.choice import backends_of_plla
from parallax.attention.plla.protocol import PllaBackend
from parallax.attention.trial import first_line

Contender = Callable[[], object] | str
"""A call to time, or why there is none."""


@dataclass(frozen=True)
class Shape:
    """A call: `queries` new tokens of a row, over `keys` in all."""

    batch: int
    heads: int
    kv_heads: int
    queries: int
    keys: int
    width: int

    def __str__(self) -> str:
        heads = f"{self.heads}/{self.kv_heads} heads"
        return f"{self.batch} x {heads}, {self.queries} queries, {self.keys} keys, D = {self.width}"


TRAINING = (Shape(4, 16, 16, 2048, 2048, 64), Shape(4, 16, 16, 2048, 2048, 128), Shape(4, 16, 4, 2048, 2048, 128))
DECODING = (Shape(1, 8, 8, 1, 4096, 128), Shape(32, 8, 8, 1, 4096, 128), Shape(1, 32, 8, 1, 16384, 128))
_ROUNDS = 20


def check_plla_speed(setting: Setting) -> Iterator[Row]:
    """Time of PLLA's backends in bf16 beside softmax attention's and fla-core's kernels, training and decoding."""
    for shape in TRAINING:
        yield from time_shape(setting, shape, training=False)
        yield from time_shape(setting, shape, training=True)
    for shape in DECODING:
        yield from time_shape(setting, shape, training=False)


def time_shape(setting: Setting, shape: Shape, *, training: bool) -> Iterator[Row]:
    """A row of every contender, then triton's over the others."""
    what = "decoding" if shape.queries == 1 else "forward and backward" if training else "forward"
    title = f"{what}, bf16, {shape}"
    if not setting.on_gpu:
        yield impossible(title, f"kernels are timed by CUDA's events, and this is {setting.device.type}")
        return
    yield from rows_of(title, contenders(setting, shape, training=training), setting)


def rows_of(title: str, given: Mapping[str, Contender], setting: Setting) -> Iterator[Row]:
    """Times what can be called, round by round in turn."""
    calls = {name: call for name, call in given.items() if not isinstance(call, str)}
    seconds = median_seconds(calls, _ROUNDS, setting)
    for name, call in given.items():
        if isinstance(call, str):
            yield impossible(f"{title}: {name}", call)
            continue
        beside = ""
        if "triton" in seconds and name != "triton":
            beside = f"; triton takes {seconds['triton'] / seconds[name]:.2f}x of it"
        how = f"median of {_ROUNDS}, cold L2{beside}"
        yield Row(f"{title}: {name}", f"{seconds[name] * 1e3:.3f} ms", reason=how)


def contenders(setting: Setting, shape: Shape, *, training: bool) -> dict[str, Contender]:
    """Triton's kernels, the chunked path, softmax attention of PyTorch, and fla-core's kernels."""
    q, r, k, v = _draw(setting, shape, training)
    decodes = shape.queries == 1
    rows = [t.detach().transpose(1, 2).contiguous().requires_grad_(training) for t in (q, r, k, v)]
    found: dict[str, Contender] = {}
    for backend in backends_of_plla():
        if backend.name == "eager":
            continue
        given = rows if decodes else [q, r, k, v]
        why_not = backend.unavailable(setting.device)
        found[backend.name] = why_not or _stepping(_calling(backend, given, decodes), given, training)
    softmax = partial(_softmax, q, k, v)
    found["softmax attention (sdpa)"] = _stepping(softmax, [q, k, v], training)
    found["fla-core"] = _fla(rows, training)
    return found


def _draw(setting: Setting, shape: Shape, training: bool) -> list[Tensor]:
    asked = (shape.batch, shape.heads, shape.queries, shape.width)
    kept = (shape.batch, shape.kv_heads, shape.keys, shape.width)
    source = torch.Generator(setting.device).manual_seed(0)
    drawn = (
        torch.randn(size, generator=source, device=setting.device, dtype=torch.bfloat16)
        for size in (asked, asked, kept, kept)
    )
    return [t.requires_grad_(training) for t in drawn]


def _calling(backend: PllaBackend, given: list[Tensor], decodes: bool) -> Callable[[], Tensor]:
    q, r, k, v = given
    scale = q.shape[-1] ** -0.5
    return (
        partial(backend.decode, q, r, k, v, scale)
        if decodes
        else partial(backend.compute, q, r, k, v, scale, None)
    )


def _softmax(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    several = q.shape[2] > 1
    return scaled_dot_product_attention(q, k, v, is_causal=several, enable_gqa=q.shape[1] != k.shape[1])


def _fla(rows: list[Tensor], training: bool) -> Contender:
    """What it raises is no failure of ours."""
    package = load_fla()
    if isinstance(package, str):
        return package
    call = partial(package.decode if rows[0].shape[1] == 1 else package.kernel, *rows)
    try:
        return _stepping(call, rows, training)
    except Exception as error:
        return f"fla-core raised {type(error).__name__}: {first_line(error)}"


def _stepping(call: Callable[[], Tensor], leaves: list[Tensor], training: bool) -> Callable[[], object]:
    """The call, with gradients of all leaves if it trains, and else without a graph; it has been called once."""
    grad = torch.randn_like(call())
    return (lambda: torch.autograd.grad(call(), leaves, grad)) if training else call
