"""The stacks of a dual-track model as a standard Llama's blocks, split by torch's own tensor parallelism."""

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

from parallax.config.models.dual_track import DualTrackConfig
from parallax.model.linear import Linear
from parallax.model.rotary import apply_rotary, rotary_angles


class LlamaAttention(nn.Module):
    """Grouped-query attention with rotary positions, each projection a matrix of its own."""

    def __init__(self, config: DualTrackConfig) -> None:
        super().__init__()
        self.head_dim = config.head_dim
        width, kv_width = config.hidden_size, config.num_kv_heads * config.head_dim
        self.q, self.k, self.v = (Linear(width, out) for out in (width, kv_width, kv_width))
        self.o = Linear(width, width)

    def forward(self, hidden: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """(B, T, D) -> (B, T, D)."""
        q, k, v = (f(hidden).unflatten(-1, (-1, self.head_dim)).transpose(1, 2) for f in (self.q, self.k, self.v))
        q, k = apply_rotary(q, cos, sin), apply_rotary(k, cos, sin)
        attended = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
        output: Tensor = self.o(attended.transpose(1, 2).flatten(2))
        return output


class LlamaMLP(nn.Module):
    """down(silu(gate h) * (up h))."""

    def __init__(self, config: DualTrackConfig) -> None:
        super().__init__()
        self.gate = Linear(config.hidden_size, config.intermediate_size)
        self.up = Linear(config.hidden_size, config.intermediate_size)
        self.down = Linear(config.intermediate_size, config.hidden_size)

    def forward(self, hidden: Tensor) -> Tensor:
        """(B, T, D) -> (B, T, D)."""
        output: Tensor = self.down(F.silu(self.gate(hidden)) * self.up(hidden))
        return output


class LlamaBlock(nn.Module):
    """One pre-norm decoder block."""

    def __init__(self, config: DualTrackConfig) -> None:
        super().__init__()
        self.attention_norm = nn.RMSNorm(config.hidden_size, eps=config.norm_eps)
        self.attention = LlamaAttention(config)
        self.mlp_norm = nn.RMSNorm(config.hidden_size, eps=config.norm_eps)
        self.mlp = LlamaMLP(config)

    def forward(self, hidden: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """(B, T, D) -> (B, T, D)."""
        hidden = hidden + self.attention(self.attention_norm(hidden), cos, sin)
        output: Tensor = hidden + self.mlp(self.mlp_norm(hidden))
        return output


class LlamaStacks(nn.Module):
    """K stacks over R passes with the swap, between an embedding and a head: the dual-track model's arithmetic."""

    def __init__(self, config: DualTrackConfig) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocab_size, config.hidden_size)
        self.tracks = nn.ModuleList(
            nn.ModuleList(LlamaBlock(config) for _ in range(config.num_layers)) for _ in range(config.num_tracks)
        )
        self.norm = nn.RMSNorm(config.hidden_size, eps=config.output_norm_eps)
        self.head = Linear(config.hidden_size, config.vocab_size)

    def forward(self, windows: Tensor) -> Tensor:
        """Windows (B, T + 1) of token ids -> the mean loss."""
        x = self.embedding(windows[:, :-1])
        positions = torch.arange(x.shape[1], device=x.device)[None]
        cos, sin = rotary_angles(positions, self.config.head_dim, self.config.rope_theta, x.dtype)
        states = [x] * len(self.tracks)
        for loop in range(self.config.num_loops):
            if loop:
                states = [state + x for state in (states[-1], *states[:-1])]
            for k, track in enumerate(self.tracks):
                assert isinstance(track, nn.ModuleList)
                for block in track:
                    states[k] = block(states[k], cos, sin)
        logits = self.head(self.norm(torch.stack(states).sum(0)))
        return F.cross_entropy(logits.flatten(0, 1), windows[:, 1:].flatten())


def apply_tensor_parallel(model: LlamaStacks, mesh: DeviceMesh) -> None:
    """Heads and the SwiGLU's width divided over the ranks, in place; embedding, norms and head stay whole.

    Attention and SwiGLU each take one shared input, whose gradient is summed once, so an executed block has
    four all-reduces of (B, T, D): two forward, two backward.
    """
    whole, column, row = Replicate(), ColwiseParallel, RowwiseParallel
    for track in model.tracks:
        assert isinstance(track, nn.ModuleList)
        for block in track:
            parallelize_module(
                block,
                mesh,
                {
                    "attention": PrepareModuleInput(
                        input_layouts=(whole, None, None), desired_input_layouts=(whole, None, None)
                    ),
                    **{f"attention.{name}": column() for name in "qkv"},
                    "attention.o": row(),
                    "mlp": PrepareModuleInput(input_layouts=(whole,), desired_input_layouts=(whole,)),
                    # Ranks hold 683 and 682 columns of 1365: only a distributed tensor knows the whole width.
                    "mlp.gate": column(use_local_output=False),
                    "mlp.up": column(use_local_output=False),
                    "mlp.down": row(),
                },
            )
