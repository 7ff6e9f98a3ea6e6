from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from parallax.attention.protocol import AttentionBackend
from parallax.config.models.base import ModelConfig
from parallax.model.cache import ForwardCache, KVCache
from parallax.model.context import BlockContext
from parallax.model.documents import document_mask
from parallax.model.embedding import TokenEmbedding, build_positions
from parallax.model.exchange import Exchange, LocalExchange
from parallax.model.head import HeadOutput, LanguageHead, Objective
from parallax.model.init import Put, initialize_parameters, put_whole
from parallax.model.noise import block_keys, drop, embedding_key, row_keys
from parallax.model.norm import build_norm
from parallax.model.piece import Piece
from parallax.model.rotary import rotary_angles
from parallax.model.track import Track
from parallax.model.vocabulary import VocabularyAxis, WholeVocabulary


class Decoder(nn.Module):
    """What all architectures share: tokens are embedded, read by K tracks, merged, normed, and projected.

    How the tracks are run, and where they meet, is each architecture's own, in `_run`.
    """

    def __init__(
        self,
        config: ModelConfig,
        backend: AttentionBackend,
        exchange: Exchange | None = None,
        vocabulary: VocabularyAxis | None = None,
    ) -> None:
        super().__init__()
        self.config = config
        self.exchange = exchange or LocalExchange(config.num_tracks)
        self.vocabulary = vocabulary or WholeVocabulary(config.vocab_size)
        self.embedding = TokenEmbedding(config.hidden_size, self.vocabulary)
        self.positions = build_positions(config)
        self.tracks = nn.ModuleDict({str(k): Track(config, backend) for k in self.exchange.local_tracks})
        self.norm = build_norm(config, config.output_norm_eps)
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
        keys = self._drawn_from(noise, tokens)
        if targets is not None:
            return self._loss(tokens, targets, objective or Objective(), per_token, documents, keys)
        hidden = self._states(tokens, cache, documents, keys)
        if last is not None:
            hidden = hidden[torch.arange(len(hidden), device=hidden.device), last]
        return self.head.logits(hidden)

    def _loss(
        self,
        tokens: Tensor,
        targets: Tensor,
        objective: Objective,
        per_token: bool,
        documents: Tensor | None,
        noise: Tensor | None,
    ) -> HeadOutput:
        """What training minimises and evaluation measures."""
        output: HeadOutput = self.head(self._states(tokens, None, documents, noise), targets, objective, per_token)
        return output

    def _drawn_from(self, noise: Tensor | None, tokens: Tensor) -> Tensor | None:
        """The row keys if this forward draws noise, checked; None if it does not."""
        if not self.training:
            # Published models that are noisy in evaluation too draw by row: the same every time.
            rows = row_keys(0, range(len(tokens))) if self.config.is_noisy_at_eval else None
            return rows if rows is None else rows.to(tokens.device)
        if not self.config.draws_noise:
            return None
        if noise is None or noise.dtype != torch.long or noise.shape != tokens.shape[:1]:
            given = "None" if noise is None else f"{tuple(noise.shape)} of {noise.dtype}"
            what = f"dropout={self.config.dropout}" if self.config.dropout else "noise"
            raise ValueError(f"training with {what} needs noise=({len(tokens)},) int64 row keys, not {given}")
        return noise

    def _states(
        self, tokens: Tensor, cache: ForwardCache | None, documents: Tensor | None, noise: Tensor | None
    ) -> Tensor:
        """(B, T) ids -> (B, T, D): embed, run the tracks, merge, norm."""
        context = self._context(tokens, cache, documents)
        x = self.embedding(tokens)
        if self.positions is not None:
            x = x + self.positions(context.positions)
        return self._through(self._drop_embedding(x, noise), context, noise, cache)

    def _drop_embedding(self, x: Tensor, noise: Tensor | None) -> Tensor:
        """Dropout of (B, T, D) embeddings, in training."""
        if noise is None or not (self.training and self.config.dropout):
            return x
        return drop(x, self.config.dropout, embedding_key(noise))

    def _through(
        self, x: Tensor, context: BlockContext, noise: Tensor | None, cache: ForwardCache | None
    ) -> Tensor:
        """(B, T, D) -> (B, T, D): what tracks, merge and norm make of embeddings."""
        pieces = self._cut(x, context, noise, 1 if cache is not None else self.exchange.num_pieces)
        self._run(pieces, cache)
        if cache is not None:
            cache.finish()
        merged = [piece.merged() for piece in pieces if piece.merged is not None]
        hidden: Tensor = self.norm(torch.cat(merged) if len(merged) > 1 else merged[0])
        return hidden

    def _run(self, pieces: list[Piece], cache: ForwardCache | None) -> None:
        """Runs all local tracks over the pieces of a batch, so that each piece's `merged` is under way."""
        raise NotImplementedError

    def _cut(self, x: Tensor, context: BlockContext, noise: Tensor | None, num_pieces: int) -> list[Piece]:
        """The batch in so many pieces, or as many as it has rows, each handed to the tracks."""
        count = min(num_pieces, len(x))
        contexts = context.chunk(count, len(x))
        rows = [None] * count if noise is None else noise.chunk(count)
        entered = [self.exchange.enter(part) for part in x.chunk(count)]
        return [
            Piece(
                part,
                own,
                [self._block_keys(keys, k) for k in self.exchange.local_tracks],
                [part] * len(self.tracks),
            )
            for part, own, keys in zip(entered, contexts, rows, strict=True)
        ]

    def _context(self, tokens: Tensor, cache: ForwardCache | None, documents: Tensor | None) -> BlockContext:
        """Where the tokens stand and what they see."""
        mask = None if documents is None else document_mask(documents)
        if cache is None:
            places = torch.arange(tokens.shape[1], device=tokens.device)[None]
        else:
            places, mask = cache.begin(tokens.shape[1])
        positions = self._positions_of(places)
        if self.config.positions != "rotary":
            return BlockContext(positions, mask=mask)
        dtype = self.embedding.weight.dtype
        cos, sin = rotary_angles(positions, self.config.head_dim, self.config.rope_theta, dtype)
        return BlockContext(positions, cos, sin, mask)

    def _positions_of(self, places: Tensor) -> Tensor:
        """The positions of tokens, given their places in the row."""
        return places

    def _block_keys(self, noise: Tensor | None, track: int) -> Sequence[Tensor | None]:
        """Keys of the noise of one track's blocks, by pass."""
        if noise is None:
            return [None] * self.config.num_loops
        return block_keys(noise, track, self.config.num_loops, self.config.layers_per_track).unbind()

    def build_cache(
        self, batch_size: int, capacity: int | None = None, dtype: torch.dtype | None = None
    ) -> KVCache:
        """An empty cache for `batch_size` rows of up to `capacity` (default: max_seq_len) tokens."""
        weight = self.embedding.weight
        return KVCache(
            num_tracks=len(self.tracks),
            num_passes=self.config.num_loops,
            num_layers=self.config.layers_per_track,
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
            executed_depth=self.config.num_loops * self.config.layers_per_track,
            vocabulary=("embedding.weight", "head.weight"),
            vocab_size=self.config.vocab_size,
            put=put,
        )
