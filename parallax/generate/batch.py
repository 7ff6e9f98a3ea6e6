from collections.abc import Sequence

import torch
from torch import Tensor

from parallax.generate.compiled import CompiledStep
from parallax.model.cache import KVCache
from parallax.model.decoder import Decoder

_PADDING = 0


def fit_window(tokens: Sequence[int], window: int) -> list[int]:
    """All tokens if they fit the context window, else the newest `window // 2` (at least one)."""
    return list(tokens) if len(tokens) <= window else list(tokens[-max(window // 2, 1) :])


class DecodingBatch:
    """Rows of text that grow by one token a step, with the model's cache of what they hold.

    Rows may be of unequal length. The first forward reads them padded on the right: causality keeps padding
    out of the logits, and the cache forgets it at once. Afterwards each step reads one token per row.

    Past the context window, each row on its own: a row that holds `max_seq_len` tokens and gets one more
    keeps its newest `max_seq_len // 2`; their positions start again at 0 and their keys and values are
    computed anew. Half, because keys hold their positions: dropping one token a step would cost a full
    forward a step.
    """

    def __init__(
        self, model: Decoder, prompts: Sequence[Sequence[int]], max_new_tokens: int, *, compiled: bool = False
    ) -> None:
        """Reads the prompts.

        Args:
            model: in evaluation mode; its cache takes autocast's type where that is on.
            prompts: B rows of token ids, none of them empty; longer than the window: see `fit_window`.
            max_new_tokens: no row will grow by more; bounds the cache.
            compiled: whether `append` runs a compiled step over a cache of the whole window, see `CompiledStep`;
                dropped rows then go on taking part in it, and nobody looks at them.
        """
        self._model = model
        self._window = model.config.max_seq_len
        self._device = model.embedding.weight.device
        self._rows = [fit_window(prompt, self._window) for prompt in prompts]
        self._places = list(range(len(self._rows)))  # the cache's row of each row
        longest = max(map(len, self._rows))
        capacity = self._window if compiled else min(longest + max_new_tokens, self._window)
        self._cache = self._build_cache(len(self._rows), capacity)
        self._step = CompiledStep(model, self._cache) if compiled else None
        self.seen = torch.zeros(len(prompts), model.config.vocab_size, dtype=torch.bool, device=self._device)
        """(B, V) boolean: the tokens of each row, those that left the window included."""
        for row, prompt in enumerate(prompts):
            self.seen[row, torch.tensor(prompt, device=self._device)] = True
        self.logits = self._read(self._rows, self._cache)
        """(B, V) fp32 or wider, of the token after each row's last."""

    def keep(self, rows: Sequence[int]) -> None:
        """Drops all other rows; those kept are renumbered from 0 in the given order."""
        if list(rows) == list(range(len(self._rows))):
            return
        index = torch.tensor(rows, device=self._device)
        if self._step is None:
            self._cache.select(rows)
            self._places = list(range(len(rows)))
        else:
            self._places = [self._places[row] for row in rows]
        self._rows = [self._rows[row] for row in rows]
        self.seen, self.logits = self.seen[index], self.logits[index]

    def append(self, tokens: Sequence[int]) -> None:
        """Adds one token to every row and computes the logits after it."""
        for held, token in zip(self._rows, tokens, strict=True):
            held.append(token)
        self._restart([row for row, held in enumerate(self._rows) if len(held) > self._window])
        newest = torch.tensor(tokens, device=self._device)[:, None]
        self.seen.scatter_(1, newest, True)
        if self._step is None:
            self.logits = self._forward(newest, self._cache, torch.zeros_like(newest[:, 0]))
        else:
            self.logits = self._step(newest[:, 0], self._places)

    def _restart(self, outgrown: list[int]) -> None:
        """Shortens rows that outgrew the window; their cache then holds all that is left but the newest token."""
        if not outgrown:
            return
        for row in outgrown:
            self._rows[row] = fit_window(self._rows[row], self._window)
        kept = len(self._rows[outgrown[0]]) - 1
        fresh = self._build_cache(len(outgrown), max(kept, 1))
        if kept:
            self._read([self._rows[row][:-1] for row in outgrown], fresh)
        self._cache.replace([self._places[row] for row in outgrown], fresh)

    def _read(self, rows: Sequence[Sequence[int]], cache: KVCache) -> Tensor:
        """Fills an empty cache with rows of unequal length; (B, V) logits after each row's last token."""
        lengths = [len(row) for row in rows]
        tokens = torch.full((len(rows), max(lengths)), _PADDING)
        for row, held in enumerate(rows):
            tokens[row, : len(held)] = torch.tensor(held)
        last = torch.tensor(lengths, device=self._device) - 1
        logits = self._forward(tokens.to(self._device), cache, last)
        cache.truncate(lengths)
        return logits

    def _forward(self, tokens: Tensor, cache: KVCache, last: Tensor) -> Tensor:
        logits: Tensor = self._model(tokens, cache=cache, last=last)
        return logits

    def _build_cache(self, batch_size: int, capacity: int) -> KVCache:
        kind, dtype = self._device.type, self._model.embedding.weight.dtype
        # Autocast leaves fp64 alone; elsewhere keys and values come in its type, and wider storage would
        # only be converted back at every step.
        if dtype != torch.float64 and torch.is_autocast_enabled(kind):
            dtype = torch.get_autocast_dtype(kind)
        return self._model.build_cache(batch_size, capacity, dtype)
