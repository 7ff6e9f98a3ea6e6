import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from string import ascii_lowercase
from typing import final

import torch
from torch import Tensor

from parallax.config.models.base import ModelConfig
from parallax.errors import CheckpointError

_NAMES_SHOWN = 3


@dataclass(frozen=True)
class NameTable:
    """Which tensors of another layout make each of our parameters: rows stacked in the order given."""

    shared: Mapping[str, tuple[str, ...]]
    """Ours -> theirs, outside the tracks."""
    block_prefix: str
    """How their names in a block begin; {layer} counts from 0, {track} from a; {number} counts all blocks from 0,
    those of one layer in all tracks first."""
    block: Mapping[str, tuple[str, ...]]
    """Ours -> theirs, within a block."""
    buffers: re.Pattern[str]
    """Their names that hold no weights: what can be computed anew."""
    transposed: frozenset[str] = frozenset()
    """Of ours within a block, the matrices that are (in, out) there."""


LLAMA = NameTable(
    shared={
        "embedding.weight": ("model.embed_tokens.weight",),
        "norm.weight": ("model.norm.weight",),
        "head.weight": ("lm_head.weight",),
    },
    block_prefix="model.layers.{layer}.",
    block={
        "attention_norm.weight": ("input_layernorm.weight",),
        "attention.qkv.weight": ("self_attn.q_proj.weight", "self_attn.k_proj.weight", "self_attn.v_proj.weight"),
        "attention.output.weight": ("self_attn.o_proj.weight",),
        "mlp_norm.weight": ("post_attention_layernorm.weight",),
        "mlp.gate_up.weight": ("mlp.gate_proj.weight", "mlp.up_proj.weight"),
        "mlp.down.weight": ("mlp.down_proj.weight",),
    },
    buffers=re.compile(r"model\.(layers\.\d+\.self_attn\.)?rotary_emb\.inv_freq"),
)
"""`LlamaForCausalLM` of transformers; one track."""

ORIGINAL = NameTable(
    shared={
        "embedding.weight": ("tok_emb.weight",),
        "norm.weight": ("output_norm.weight",),
        "head.weight": ("lm_head.weight",),
    },
    block_prefix="track_{track}.{layer}.",
    block={
        "attention_norm.weight": ("norm1.weight",),
        "attention.qkv.weight": ("attn.wq.weight", "attn.wk.weight", "attn.wv.weight"),
        "attention.output.weight": ("attn.wo.weight",),
        "mlp_norm.weight": ("norm2.weight",),
        "mlp.gate_up.weight": ("ffn.w1.weight", "ffn.w2.weight"),
        "mlp.down.weight": ("ffn.w3.weight",),
    },
    buffers=re.compile(r"(.*\.)?freqs_(cos|sin)"),
)
"""The original dual-track implementation: tracks a and b."""


GPT2 = NameTable(
    shared={
        "embedding.weight": ("transformer.wte.weight",),
        "positions.weight": ("transformer.wpe.weight",),
        "norm.weight": ("transformer.ln_f.weight",),
        "norm.bias": ("transformer.ln_f.bias",),
        "head.weight": ("lm_head.weight",),
    },
    block_prefix="transformer.h.{number}.",
    block={
        f"{ours}.{part}": (f"{theirs}.{part}",)
        for ours, theirs in (
            ("attention_norm", "ln_1"),
            ("attention.qkv", "attn.c_attn"),
            ("attention.output", "attn.c_proj"),
            ("mlp_norm", "ln_2"),
            ("mlp.up", "mlp.c_fc"),
            ("mlp.down", "mlp.c_proj"),
        )
        for part in ("weight", "bias")
    },
    buffers=re.compile(r"transformer\.h\.\d+\.attn\.(masked_)?bias"),
    transposed=frozenset({"attention.qkv.weight", "attention.output.weight", "mlp.up.weight", "mlp.down.weight"}),
)
"""`GPT2LMHeadModel` of transformers; the two blocks of a pair are neighbours in its published parallel variant."""


@dataclass(frozen=True)
class Piece:
    """A tensor of the other layout."""

    name: str
    shape: tuple[int, ...]
    """As it is there."""
    is_transposed: bool = False
    """Whether it is the transpose of ours."""


Layout = Mapping[str, tuple[Piece, ...]]
"""Our parameter name -> the pieces that, stacked, are the parameter."""


def expand(table: NameTable, config: ModelConfig) -> Layout:
    """The table written out for a model's tracks and layers; tied embeddings stand once, as the embedding."""
    shapes = _piece_shapes(config)
    layout = {ours: _pieces("", theirs, shapes[ours]) for ours, theirs in table.shared.items()}
    if config.tie_embeddings:
        del layout["head.weight"]
    if not config.num_positions:
        layout.pop("positions.weight", None)
    for track in range(config.num_tracks):
        for layer in range(config.layers_per_track):
            number = layer * config.num_tracks + track
            prefix = table.block_prefix.format(track=ascii_lowercase[track], layer=layer, number=number)
            layout |= {
                f"tracks.{track}.blocks.{layer}.{ours}": _pieces(
                    prefix, theirs, shapes[ours], is_transposed=ours in table.transposed
                )
                for ours, theirs in table.block.items()
            }
    return layout


def _pieces(
    prefix: str, names: Sequence[str], shapes: Sequence[tuple[int, ...]], *, is_transposed: bool = False
) -> tuple[Piece, ...]:
    """Of one parameter; a single name stands for all its pieces in one."""
    if len(names) == 1:
        shapes = [(sum(shape[0] for shape in shapes), *shapes[0][1:])]
    return tuple(
        Piece(prefix + name, shape[::-1] if is_transposed else shape, is_transposed)
        for name, shape in zip(names, shapes, strict=True)
    )


def _piece_shapes(config: ModelConfig) -> dict[str, list[tuple[int, ...]]]:
    """Shapes of a parameter's pieces: q, k and v apart, gate and up apart."""
    width, inner, head = config.hidden_size, config.intermediate_size, config.head_dim
    heads = (config.num_heads, config.num_kv_heads, config.num_kv_heads)
    of_width = ["norm.weight", "norm.bias", "attention_norm.weight", "attention_norm.bias", "mlp_norm.weight"]
    of_width += ["mlp_norm.bias", "attention.output.bias", "mlp.down.bias"]
    return {
        **{name: [(width,)] for name in of_width},
        "embedding.weight": [(config.vocab_size, width)],
        "positions.weight": [(config.num_positions, width)],
        "head.weight": [(config.vocab_size, width)],
        "attention.qkv.weight": [(count * head, width) for count in heads],
        "attention.qkv.bias": [(count * head,) for count in heads],
        "attention.output.weight": [(width, width)],
        "mlp.gate_up.weight": [(inner, width), (inner, width)],
        "mlp.up.weight": [(inner, width)],
        "mlp.up.bias": [(inner,)],
        "mlp.down.weight": [(width, inner)],
    }


@final
@dataclass(frozen=True)
class StackedTensors(Mapping[str, Tensor]):
    """Tensors by our names, each put together when it is asked for, so that no second copy of all exists."""

    layout: Layout
    tensors: Mapping[str, Tensor] = field(repr=False)
    """By their names."""

    def __getitem__(self, name: str) -> Tensor:
        pieces = [
            self.tensors[piece.name].T if piece.is_transposed else self.tensors[piece.name]
            for piece in self.layout[name]
        ]
        return pieces[0] if len(pieces) == 1 else torch.cat(pieces)

    def __iter__(self) -> Iterator[str]:
        return iter(self.layout)

    def __len__(self) -> int:
        return len(self.layout)


def from_foreign(
    table: NameTable, config: ModelConfig, tensors: Mapping[str, Tensor], source: str | Path
) -> StackedTensors:
    """Another layout's tensors by our names.

    Args:
        table: of the layout.
        config: of the model.
        tensors: by their names; buffers are left aside.
        source: where they come from, for messages.

    Raises:
        CheckpointError: a tensor is missing, unknown or of another shape than the configuration gives it.
    """
    layout = expand(table, config)
    expected = {piece.name: piece.shape for pieces in layout.values() for piece in pieces}
    missing = [name for name in expected if name not in tensors]
    unknown = [name for name in tensors if name not in expected and not table.buffers.fullmatch(name)]
    reshaped = [
        f"{name} is {_by(tensors[name].shape)}, not {_by(shape)}"
        for name, shape in expected.items()
        if name in tensors and tuple(tensors[name].shape) != shape
    ]
    for problem, names in (("lacks", missing), ("has the unknown", unknown), ("does not fit:", reshaped)):
        if names:
            more = f" and {len(names) - _NAMES_SHOWN} more" if len(names) > _NAMES_SHOWN else ""
            raise CheckpointError(
                f"{source} {problem} {', '.join(names[:_NAMES_SHOWN])}{more}; expected the tensors of "
                f"{config.num_tracks} track(s) of {config.layers_per_track} layers as its configuration has them"
            )
    return StackedTensors(layout, tensors)


def to_foreign(table: NameTable, config: ModelConfig, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Our parameters by the names of another layout: the inverse of `from_foreign`; views, nothing is copied."""
    tensors: dict[str, Tensor] = {}
    for ours, pieces in expand(table, config).items():
        rows = [piece.shape[-1] if piece.is_transposed else piece.shape[0] for piece in pieces]
        parts = torch.split(weights[ours], rows)
        tensors |= {
            piece.name: part.T if piece.is_transposed else part for piece, part in zip(pieces, parts, strict=True)
        }
    return tensors


def _by(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape)) or "a scalar"
