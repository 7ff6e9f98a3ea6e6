from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import cast

import torch
from torch import Tensor, nn

from parallax.attention.protocol import AttentionBackend
from parallax.config.model import DualTrackConfig
from parallax.model.block import BlockContext
from parallax.model.cache import ForwardCache, KVCache
from parallax.model.documents import document_mask
from parallax.model.embedding import TokenEmbedding
from parallax.model.exchange import Arrival, Exchange, LocalExchange
from parallax.model.head import HeadOutput, LanguageHead, Objective
from parallax.model.init import Put, initialize_parameters, put_whole
from parallax.model.noise import block_keys, drop, embedding_key
from parallax.model.norm import RMSNorm
from parallax.model.rotary import rotary_angles
from parallax.model.track import Track
from parallax.model.vocabulary import VocabularyAxis, WholeVocabulary
from parallax.runtime.layout import SHARED, Owner, OwnershipMap


@dataclass
class _Piece:
    """Some rows of a batch on their way through the passes."""

    x: Tensor
    """What every track entered with."""
    context: BlockContext
    noise: Sequence[Sequence[Tensor | None]]
    """Dropout keys by local track and pass."""
    states: list[Tensor]
    """Of the last pass, one per local track."""
    arrival: Arrival | None = None
    """Of what the next pass reads, while it is on its way."""
    fused: Callable[[], Tensor] | None = None
    """The sum of the last pass's states, while it is on its way."""


class DualTrack(nn.Module):
    """K tracks that read one embedding, swap between passes, and are summed at the end.

    x = embed(tokens); every track starts from x and runs pass 1. Before each further pass, with the swap,
    track k reads the output of track k-1 (mod K) + x; without it, its own output (+ x if reinjected).
    After the last pass: logits = head(norm(sum of the outputs)).
    """

    def __init__(
        self,
        config: DualTrackConfig,
        backend: AttentionBackend,
        exchange: Exchange | None = None,
        vocabulary: VocabularyAxis | None = None,
    ) -> None:
        super().__init__()
        self.config = config
        self.exchange = exchange or LocalExchange(config.num_tracks)
        self.vocabulary = vocabulary or WholeVocabulary(config.vocab_size)
        self.embedding = TokenEmbedding(config.hidden_size, self.vocabulary)
        self.tracks = nn.ModuleDict({str(k): Track(config, backend) for k in self.exchange.local_tracks})
        self.norm = RMSNorm(config.hidden_size, eps=config.output_norm_eps)
        self.head = LanguageHead(config.hidden_size, self.vocabulary)
        self._tie()

    def forward(
        self,
        tokens: Tensor,
        targets: Tensor | None = None,
        *,
        objective: Objective | None = None,
        per_token: bool = False,
        cache: ForwardCache | None = None,
        last: Tensor | None = None,
        documents: Tensor | None = None,
        noise: Tensor | None = None,
    ) -> HeadOutput | Tensor:
        """Loss or logits of (B, T) token ids.

        Args:
            tokens: (B, T) token ids.
            targets: (B, T) ids to predict, IGNORE_INDEX where nothing is; None: return logits.
            objective: what to minimise; plain cross-entropy if None.
            per_token: also return every token's negative log-likelihood.
            cache: keys and values of earlier tokens; the new ones are appended.
            last: (B,) index into T of the one place per row whose logits are wanted; None: all places.
            documents: (B, T) document of each token (see `document_ids`), which attends to its own document
                only; None: a row is one document.
            noise: (B,) int64 keys that the rows' dropout masks are drawn from (see `row_keys`); needed when
                training with dropout, and of no effect otherwise.

        Returns:
            Logits (B, T, V), or (B, V) if `last` is given; with targets HeadOutput.

        Raises:
            ValueError: documents and a cache, whose rows are one document each; training with dropout and no
                noise, or noise that is not one int64 key a row.
        """
        if documents is not None and cache is not None:
            raise ValueError("a cache holds one document a row: give either documents or a cache")
        hidden = self._states(tokens, cache, documents, self._drawn_from(noise, tokens))
        if targets is not None:
            output: HeadOutput = self.head(hidden, targets, objective or Objective(), per_token)
            return output
        if last is not None:
            hidden = hidden[torch.arange(len(hidden), device=hidden.device), last]
        return self.head.logits(hidden)

    def _drawn_from(self, noise: Tensor | None, tokens: Tensor) -> Tensor | None:
        """The row keys if dropout is on, checked; None if it is off."""
        if not (self.training and self.config.dropout):
            return None
        if noise is None or noise.dtype != torch.long or noise.shape != tokens.shape[:1]:
            given = "None" if noise is None else f"{tuple(noise.shape)} of {noise.dtype}"
            raise ValueError(
                f"training with dropout={self.config.dropout} needs noise=({len(tokens)},) int64 row keys, "
                f"not {given}"
            )
        return noise

    def _states(
        self, tokens: Tensor, cache: ForwardCache | None, documents: Tensor | None, noise: Tensor | None
    ) -> Tensor:
        """(B, T) -> (B, T, D): embed, enter, pass, swap, pass, ..., fuse, norm."""
        x = self.embedding(tokens)
        if noise is not None:
            x = drop(x, self.config.dropout, embedding_key(noise))
        context = self._context(tokens, x.dtype, cache, documents)
        pieces = self._cut(x, context, noise, 1 if cache is not None else self.exchange.num_pieces)
        for loop in range(self.config.num_loops):
            for piece in pieces:
                self._pass(piece, loop, cache)
        if cache is not None:
            cache.finish()
        fused = [piece.fused() for piece in pieces if piece.fused is not None]
        return self.norm(torch.cat(fused) if len(fused) > 1 else fused[0])

    def _pass(self, piece: _Piece, loop: int, cache: ForwardCache | None) -> None:
        """One pass of all local tracks over a piece of the batch; what it swaps or fuses then is on its way."""
        states = piece.arrival() if piece.arrival is not None else piece.states
        if loop and self.config.reinjects:
            states = [state + piece.x for state in states]
        piece.states = [
            track(
                state,
                piece.context,
                cache.slots(local, loop) if cache else None,
                noise=piece.noise[local][loop],
            )
            for local, (track, state) in enumerate(zip(self.tracks.values(), states, strict=True))
        ]
        is_last = loop + 1 == self.config.num_loops
        piece.arrival = self.exchange.begin_shift(piece.states) if self.config.use_swap and not is_last else None
        piece.fused = self.exchange.begin_reduce(piece.states) if is_last else None

    def _cut(self, x: Tensor, context: BlockContext, noise: Tensor | None, num_pieces: int) -> list[_Piece]:
        """The batch in so many pieces, or as many as it has rows, each handed to the tracks."""
        count = min(num_pieces, len(x))
        contexts = [context] * count
        if context.mask is not None and count > 1:
            contexts = [replace(context, mask=mask) for mask in context.mask.chunk(count)]
        rows = [None] * count if noise is None else noise.chunk(count)
        entered = [self.exchange.enter(part) for part in x.chunk(count)]
        return [
            _Piece(
                part,
                own,
                [self._block_keys(keys, k) for k in self.exchange.local_tracks],
                [part] * len(self.tracks),
            )
            for part, own, keys in zip(entered, contexts, rows, strict=True)
        ]

    def _context(
        self, tokens: Tensor, dtype: torch.dtype, cache: ForwardCache | None, documents: Tensor | None
    ) -> BlockContext:
        mask = None if documents is None else document_mask(documents)
        if cache is None:
            positions = torch.arange(tokens.shape[1], device=tokens.device)[None]
        else:
            positions, mask = cache.begin(tokens.shape[1])
        cos, sin = rotary_angles(positions, self.config.head_dim, self.config.rope_theta, dtype)
        return BlockContext(cos, sin, mask)

    def _block_keys(self, noise: Tensor | None, track: int) -> Sequence[Tensor | None]:
        """Dropout keys of one track's blocks, by pass."""
        if noise is None:
            return [None] * self.config.num_loops
        return block_keys(noise, track, self.config.num_loops, self.config.num_layers).unbind()

    def build_cache(
        self, batch_size: int, capacity: int | None = None, dtype: torch.dtype | None = None
    ) -> KVCache:
        """An empty cache for `batch_size` rows of up to `capacity` (default: max_seq_len) tokens."""
        weight = self.embedding.weight
        return KVCache(
            num_tracks=len(self.tracks),
            num_passes=self.config.num_loops,
            num_layers=self.config.num_layers,
            batch_size=batch_size,
            num_kv_heads=self.config.num_kv_heads,
            capacity=capacity or self.config.max_seq_len,
            head_dim=self.config.head_dim,
            device=weight.device,
            dtype=dtype or weight.dtype,
        )

    def materialize(self, device: torch.device | str) -> None:
        """Gives a model built on the meta device undefined memory on `device`."""
        self.to_empty(device=device)
        # to_empty makes a new tensor for every place a parameter stands in, which parts tied ones.
        self._tie()

    def _tie(self) -> None:
        if self.config.tie_embeddings:
            self.head.weight = cast(nn.Parameter, self.embedding.weight)

    def initialize(self, seed: int, put: Put = put_whole) -> None:
        """Draws all weights; see `initialize_parameters`."""
        initialize_parameters(
            self,
            seed=seed,
            executed_depth=self.config.num_loops * self.config.num_layers,
            vocabulary=("embedding.weight", "head.weight"),
            vocab_size=self.config.vocab_size,
            put=put,
        )


def dual_track_ownership(config: DualTrackConfig) -> OwnershipMap:
    """Parameter name -> owner: the tracks' own, and the shared embedding, norm and head."""
    block = (
        "attention_norm.weight",
        "attention.qkv.weight",
        "attention.output.weight",
        "mlp_norm.weight",
        "mlp.gate_up.weight",
        "mlp.down.weight",
    )
    owners = {"embedding.weight": Owner(vocab_dim=0), "norm.weight": SHARED}
    if not config.tie_embeddings:
        owners["head.weight"] = Owner(vocab_dim=0)
    for k in range(config.num_tracks):
        for layer in range(config.num_layers):
            owners |= {f"tracks.{k}.blocks.{layer}.{name}": Owner(track=k) for name in block}
    return owners
