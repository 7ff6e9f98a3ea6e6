"""The original dual-track model, restated plainly from its description, with its parameter names."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Norm(nn.Module):
    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.ones(width)), eps

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * x / torch.sqrt((x * x).mean(-1, keepdim=True) + self.eps)


class Block(nn.Module):
    def __init__(self, c: dict[str, Any]) -> None:
        super().__init__()
        width, self.heads = c["n_embd"], c["n_head"]
        groups, inner = c["n_kv_heads"] or c["n_head"], int(8 / 3 * width)
        self.size = width // self.heads
        self.norm1, self.norm2 = Norm(width, c["norm_eps"]), Norm(width, c["norm_eps"])
        sizes = {"wq": width, "wk": groups * self.size, "wv": groups * self.size, "wo": width}
        self.attn = nn.ModuleDict({name: nn.Linear(width, out, bias=False) for name, out in sizes.items()})
        shapes = {"w1": (width, inner), "w2": (width, inner), "w3": (inner, width)}
        self.ffn = nn.ModuleDict({name: nn.Linear(*shape, bias=False) for name, shape in shapes.items()})

    def rotate(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        a, b = x[..., : self.size // 2], x[..., self.size // 2 :]
        return torch.cat((a * cos - b * sin, a * sin + b * cos), -1)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        n = self.norm1(x)
        q, k, v = (self.attn[w](n).unflatten(-1, (-1, self.size)).transpose(1, 2) for w in ("wq", "wk", "wv"))
        q, k = self.rotate(q, cos, sin), self.rotate(k, cos, sin)
        k, v = (t.repeat_interleave(self.heads // t.shape[1], 1) for t in (k, v))
        future = torch.ones(x.shape[1], x.shape[1]).triu(1).bool()
        weights = (q @ k.mT / self.size**0.5).masked_fill(future, -torch.inf).softmax(-1)
        x = x + self.attn["wo"]((weights @ v).transpose(1, 2).flatten(2))
        n = self.norm2(x)
        return x + self.ffn["w3"](F.silu(self.ffn["w1"](n)) * self.ffn["w2"](n))


class Original(nn.Module):
    def __init__(self, c: dict[str, Any]) -> None:
        super().__init__()
        self.c, half = c, c["n_embd"] // c["n_head"] // 2
        self.tok_emb = nn.Embedding(c["vocab_size"], c["n_embd"])
        self.track_a, self.track_b = (nn.ModuleList(Block(c) for _ in range(c["n_layer"])) for _ in "ab")
        self.output_norm = Norm(c["n_embd"], 1e-6)
        self.lm_head = nn.Linear(c["n_embd"], c["vocab_size"], bias=False)
        angles = torch.outer(torch.arange(c["block_size"]), 10_000.0 ** -(torch.arange(half) / half))
        self.register_buffer("freqs_cos", angles.cos())
        self.register_buffer("freqs_sin", angles.sin())

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.tok_emb(tokens)
        a = b = x
        for loop in range(self.c["num_loops"]):
            if loop and self.c["use_swap"]:
                a, b = b + x, a + x
            for block in self.track_a:
                a = block(a, self.freqs_cos[: x.shape[1]], self.freqs_sin[: x.shape[1]])
            for block in self.track_b:
                b = block(b, self.freqs_cos[: x.shape[1]], self.freqs_sin[: x.shape[1]])
        return self.lm_head(self.output_norm(a + b))
