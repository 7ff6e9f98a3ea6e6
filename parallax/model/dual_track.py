from parallax.config.models.dual_track import DualTrackConfig
from parallax.model.cache import ForwardCache
from parallax.model.decoder import Decoder
from parallax.model.piece import Piece


class DualTrack(Decoder):
    """K tracks that read one embedding, swap between passes, and are summed at the end.

    x = embed(tokens); every track starts from x and runs pass 1. Before each further pass, with the swap,
    track k reads the output of track k-1 (mod K) + x; without it, its own output (+ x if reinjected).
    After the last pass: logits = head(norm(sum of the outputs)).
    """

    config: DualTrackConfig

    def _run(self, pieces: list[Piece], cache: ForwardCache | None) -> None:
        for loop in range(self.config.num_loops):
            for piece in pieces:
                self._pass(piece, loop, cache)

    def _pass(self, piece: Piece, loop: int, cache: ForwardCache | None) -> None:
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
        piece.merged = self.exchange.begin_reduce(piece.states) if is_last else None
