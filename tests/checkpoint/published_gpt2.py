"""GPT-2's published variants written out from their equations, over tensors in their own naming."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

Named = Mapping[str, Tensor]


def block_shapes(width: int, inner: int) -> dict[str, tuple[int, ...]]:
    """Of one block, by their names; matrices are (in, out)."""
    vectors = {f"{norm}.{part}": (width,) for norm in ("ln_1", "ln_2") for part in ("weight", "bias")}
    matrices = {
        "attn.c_attn": (width, 3 * width),
        "attn.c_proj": (width, width),
        "mlp.c_fc": (width, inner),
        "mlp.c_proj": (inner, width),
    }
    weights = {f"{name}.weight": shape for name, shape in matrices.items()}
    return vectors | weights | {f"{name}.bias": shape[1:] for name, shape in matrices.items()}


@dataclass(frozen=True)
class Published:
    """A model: sizes, tensors, and what a variant does otherwise.

    A hook gets the tensors of the block's attention, by their names there.
    """

    raw: Mapping[str, Any]
    tensors: Named
    turn: Callable[[Tensor, Named], Tensor] | None = None
    """Positions of (B, H, T, E) queries or keys."""
    perturb: Callable[[Tensor, Named], Tensor] | None = None
    """What becomes of attention's (B, T, H, E) output."""
    merge: Callable[[Tensor, Tensor], Tensor] | None = None
    """What becomes of the states after the two blocks of a pair; None: blocks follow each other."""

    def logits(self, tokens: Tensor, positions: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        """(B, T, V), or for a sequence of slots with their positions and what each sees."""
        tensors, length = self.tensors, tokens.shape[1]
        positions = torch.arange(length) if positions is None else positions
        mask = torch.ones(length, length, dtype=torch.bool).tril() if mask is None else mask
        h = tensors["transformer.wte.weight"][tokens] + tensors["transformer.wpe.weight"][positions]
        numbers = range(self.raw["n_layer"])
        if self.merge is None:
            for number in numbers:
                h = self._block(number, h, mask)
        else:
            for number in numbers[::2]:
                h = self.merge(self._block(number, h, mask), self._block(number + 1, h, mask))
        return self._norm(h, "transformer.ln_f.") @ tensors["transformer.wte.weight"].T

    def _block(self, number: int, h: Tensor, mask: Tensor) -> Tensor:
        prefix = f"transformer.h.{number}."
        own = {k.removeprefix(prefix): v for k, v in self.tensors.items() if k.startswith(prefix)}
        h = h + self._attention(self._norm(h, prefix + "ln_1."), own, mask)
        inner = F.gelu(_product(self._norm(h, prefix + "ln_2."), own, "mlp.c_fc"), approximate="tanh")
        return h + _product(inner, own, "mlp.c_proj")

    def _attention(self, x: Tensor, own: Named, mask: Tensor) -> Tensor:
        heads = (
            part.unflatten(-1, (self.raw["n_head"], -1)) for part in _product(x, own, "attn.c_attn").chunk(3, -1)
        )
        q, k, v = (part.transpose(1, 2) for part in heads)
        if self.turn is not None:
            q, k = self.turn(q, own), self.turn(k, own)
        scores = (q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5).masked_fill(~mask, -torch.inf)
        attended = (scores.softmax(-1) @ v).transpose(1, 2)
        if self.perturb is not None:
            attended = self.perturb(attended, own)
        return _product(attended.flatten(2), own, "attn.c_proj")

    def _norm(self, x: Tensor, name: str) -> Tensor:
        tensors, eps = self.tensors, self.raw["layer_norm_epsilon"]
        return F.layer_norm(x, x.shape[-1:], tensors[f"{name}weight"], tensors[f"{name}bias"], eps)


def _product(x: Tensor, own: Named, name: str) -> Tensor:
    return x @ own[f"{name}.weight"] + own[f"{name}.bias"]


def turned_pairs(x: Tensor, frequencies: Tensor) -> Tensor:
    """Neighbours (2i, 2i + 1) as complex numbers, turned by position times the frequencies (H, E/2)."""
    angles = torch.arange(x.shape[2])[:, None] * frequencies[:, None]
    numbers = torch.view_as_complex(x.unflatten(-1, (-1, 2)).contiguous())
    return torch.view_as_real(numbers * torch.polar(torch.ones_like(angles), angles)).flatten(-2)
