from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn

from parallax.attention.protocol import AttentionBackend
from parallax.config.models.gpt2 import ParallelConfig
from parallax.model.cache import ForwardCache
from parallax.model.decoder import Decoder
from parallax.model.exchange import Exchange
from parallax.model.linear import Linear
from parallax.model.piece import Piece
from parallax.model.track import Track
from parallax.model.vocabulary import VocabularyAxis


class Gpt2Parallel(Decoder):
    """GPT-2 whose L layers are taken in pairs: both blocks of pair p read the same h, and become one state again.

        mean     h <- (a + b) / 2
        concat   h <- W_p [a; b] + c_p = A_p a + B_p b + c_p

    Track 0 has the first blocks of all pairs and track 1 the second, so that the two of a pair can be on two
    ranks: a merge is one sum over the tracks. Each holds its half of W, (D, D).
    """

    config: ParallelConfig

    def __init__(
        self,
        config: ParallelConfig,
        backend: AttentionBackend,
        exchange: Exchange | None = None,
        vocabulary: VocabularyAxis | None = None,
    ) -> None:
        super().__init__(config, backend, exchange, vocabulary)
        self.biases: nn.ParameterList | None = None
        if config.merge == "concat":
            pairs, width = config.layers_per_track, config.hidden_size
            for track in self.tracks.values():
                track.merges = nn.ModuleList(Linear(width, width) for _ in range(pairs))
            self.biases = nn.ParameterList(nn.Parameter(torch.empty(width)) for _ in range(pairs))

    def _run(self, pieces: list[Piece], cache: ForwardCache | None) -> None:
        for pair in range(self.config.layers_per_track):
            for piece in pieces:
                entered = piece.x if piece.merged is None else self.exchange.enter(piece.merged())
                piece.states = self._pair(pair, entered, piece, cache)
                piece.merged = self._merge(pair, piece.states)

    def _pair(self, pair: int, hidden: Tensor, piece: Piece, cache: ForwardCache | None) -> list[Tensor]:
        """What the local blocks of a pair give to its merge."""
        given = []
        for local, track in enumerate(self.tracks.values()):
            slot = cache.slots(local, 0)[pair] if cache else None
            output = cast(Track, track).run_block(pair, hidden, piece.context, slot, noise=piece.noise[local][0])
            given.append(output if self.biases is None else cast(Any, track).merges[pair](output))
        return given

    def _merge(self, pair: int, outputs: list[Tensor]) -> Callable[[], Tensor]:
        """One state of the two, while it is on its way."""
        total = self.exchange.begin_reduce(outputs)
        if self.biases is None:
            return lambda: total() / self.exchange.num_tracks
        bias = self.biases[pair]
        return lambda: total() + bias
