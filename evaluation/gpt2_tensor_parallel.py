"""GPT-2's blocks in pairs that are merged, as a standard GPT-2 has them, split by torch's tensor parallelism."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import Replicate
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    PrepareModuleInput,
    RowwiseParallel,
    parallelize_module,
)
from torch.distributed.tensor.parallel.style import ParallelStyle

from parallax.config.models.gpt2 import ParallelConfig


class Gpt2Attention(nn.Module):
    """Attention with as many key as query heads, each projection a matrix of its own."""

    def __init__(self, config: ParallelConfig) -> None:
        super().__init__()
        self.head_dim = config.head_dim
        self.q, self.k, self.v, self.o = (nn.Linear(config.hidden_size, config.hidden_size) for _ in range(4))

    def forward(self, hidden: Tensor) -> Tensor:
        """(B, T, D) -> (B, T, D)."""
        q, k, v = (f(hidden).unflatten(-1, (-1, self.head_dim)).transpose(1, 2) for f in (self.q, self.k, self.v))
        attended = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        output: Tensor = self.o(attended.transpose(1, 2).flatten(2))
        return output


class Gpt2MLP(nn.Module):
    """down(gelu(up h))."""

    def __init__(self, config: ParallelConfig) -> None:
        super().__init__()
        self.up = nn.Linear(config.hidden_size, config.intermediate_size)
        self.down = nn.Linear(config.intermediate_size, config.hidden_size)

    def forward(self, hidden: Tensor) -> Tensor:
        """(B, T, D) -> (B, T, D)."""
        output: Tensor = self.down(F.gelu(self.up(hidden), approximate="tanh"))
        return output


class Gpt2Block(nn.Module):
    """One pre-norm decoder block."""

    def __init__(self, config: ParallelConfig) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(config.hidden_size, eps=config.norm_eps)
        self.attention = Gpt2Attention(config)
        self.mlp_norm = nn.LayerNorm(config.hidden_size, eps=config.norm_eps)
        self.mlp = Gpt2MLP(config)

    def forward(self, hidden: Tensor) -> Tensor:
        """(B, T, D) -> (B, T, D)."""
        hidden = hidden + self.attention(self.attention_norm(hidden))
        output: Tensor = hidden + self.mlp(self.mlp_norm(hidden))
        return output


class Gpt2Pairs(nn.Module):
    """Pairs of blocks that read one state and are merged: the arithmetic of GPT-2's parallel variant.

    Args:
        config: its merge may be either.
    """

    def __init__(self, config: ParallelConfig) -> None:
        super().__init__()
        width, pairs = config.hidden_size, range(config.layers_per_track)
        self.embedding = nn.Embedding(config.vocab_size, width)
        self.positions = nn.Embedding(config.max_seq_len, width)
        self.blocks = nn.ModuleList(Gpt2Block(config) for _ in range(config.num_layers))
        self.merges = nn.ModuleList(nn.Linear(2 * width, width) for _ in pairs if config.merge == "concat")
        self.norm = nn.LayerNorm(width, eps=config.output_norm_eps)

    def forward(self, windows: Tensor) -> Tensor:
        """Windows (B, T + 1) of token ids -> the mean loss."""
        places = torch.arange(windows.shape[1] - 1, device=windows.device)
        state = self.embedding(windows[:, :-1]) + self.positions(places)
        for pair in range(len(self.blocks) // 2):
            first, second = (self.blocks[2 * pair + k](state) for k in range(2))
            if len(self.merges):
                state = self.merges[pair](torch.cat((first, second), dim=-1))
            else:
                state = (first + second) / 2
        logits = F.linear(self.norm(state), self.embedding.weight)
        return F.cross_entropy(logits.flatten(0, 1), windows[:, 1:].flatten())


def apply_tensor_parallel_to_pairs(model: Gpt2Pairs, mesh: DeviceMesh) -> None:
    """Heads and the MLP's width divided over the ranks, in place; embeddings, norms, merges and head stay whole.

    Attention and MLP each take one input, whose gradient is summed once, so a block has four all-reduces of
    (B, T, D): two forward, two backward.
    """
    whole, column, row = Replicate(), ColwiseParallel, RowwiseParallel
    entrance = PrepareModuleInput(input_layouts=(whole,), desired_input_layouts=(whole,))
    for block in model.blocks:
        plan: dict[str, ParallelStyle] = {
            "attention": entrance,
            **{f"attention.{name}": column() for name in "qkv"},
            "attention.o": row(),
            "mlp": entrance,
            "mlp.up": column(),
            "mlp.down": row(),
        }
        parallelize_module(block, mesh, plan)
