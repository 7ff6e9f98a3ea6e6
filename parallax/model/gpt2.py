from parallax.config.models.gpt2 import Gpt2Config
from parallax.model.cache import ForwardCache
from parallax.model.decoder import Decoder
from parallax.model.piece import Piece


class Gpt2(Decoder):
    """GPT-2: one track, read once. What its blocks are made of, the configuration says.

    Drift-diffusion and rotating head are this model with other blocks.
    Source: Radford et al., "Language Models are Unsupervised Multitask Learners", 2019.
    """

    config: Gpt2Config

    def _run(self, pieces: list[Piece], cache: ForwardCache | None) -> None:
        [track] = self.tracks.values()
        for piece in pieces:
            slots = cache.slots(0, 0) if cache else None
            piece.states = [track(piece.x, piece.context, slots, noise=piece.noise[0][0])]
            piece.merged = self.exchange.begin_reduce(piece.states)
