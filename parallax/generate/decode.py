from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch

from parallax.errors import ConfigError, DataError, NonFiniteError, TokenizerError
from parallax.generate.batch import DecodingBatch, fit_window
from parallax.generate.sampling import NOT_FINITE, SamplingOptions, sample
from parallax.model.decoder import Decoder
from parallax.model.mode import evaluation_mode
from parallax.runtime.seeds import derived_generator

Finish = Literal["eos", "length"]
OnToken = Callable[[int, int], None]


@dataclass(frozen=True)
class Generation:
    """What was written after one prompt."""

    tokens: list[int]
    """The new tokens, without the end-of-document token."""
    finished: Finish
    """eos: the model ended the document; length: `max_new_tokens` were written."""
    dropped_prompt_tokens: int
    """How many of the prompt's oldest tokens did not fit the context window and were not read."""


@torch.inference_mode()
def generate(
    model: Decoder,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    options: SamplingOptions,
    seed: int,
    eos_id: int | None,
    on_token: OnToken | None = None,
    batch_size: int | None = None,
    compile_step: bool = False,
) -> list[Generation]:
    """Continues every prompt, on the model's device and, under autocast, in its type.

    Row r draws from a generator of its own, seeded by (seed, "sample", r). What it writes depends on the
    model, its prompt, the options, the seed and r; other rows and `batch_size` enter only through the
    rounding of batched matrix products. Rows that are finished leave the batch: they cost nothing, and the
    others read the same keys and values as before.

    An empty prompt starts from `eos_id`, which separates documents in the training data. Past the context
    window a row goes on from its newest `max_seq_len // 2` tokens (see `DecodingBatch`); a prompt longer
    than `max_seq_len` is cut the same way, and `Generation.dropped_prompt_tokens` says by how much. The
    repetition penalty looks at the whole prompt and everything written since.

    Args:
        model: any mode, which it keeps; no gradients are recorded.
        prompts: rows of token ids.
        max_new_tokens: the most tokens written per row; at least 1.
        options: how tokens are drawn.
        seed: of the draws.
        eos_id: the token that ends a document; None: rows end by length only.
        on_token: called with (r, token id) for every token in `Generation.tokens` as soon as it is drawn.
        batch_size: the most rows decoded at the same time; None: all.
        compile_step: decode with one compiled step over a cache of fixed size (`CompiledStep`): the first call
            compiles, for half a minute or so, and every token after that comes faster.

    Returns:
        One `Generation` per prompt, in their order.

    Raises:
        ConfigError: `max_new_tokens` or `batch_size` is below 1.
        DataError: a token id outside the vocabulary, or an empty prompt without an `eos_id`.
        TokenizerError: `eos_id` is outside the vocabulary.
        NonFiniteError: the model's logits are NaN or infinite.
    """
    for name, count in (("max_new_tokens", max_new_tokens), ("batch_size", batch_size)):
        if count is not None and count < 1:
            raise ConfigError(f"{name}={count}: expected at least 1")
    _check_ids(prompts, eos_id, model.config.vocab_size)
    request = _Request(max_new_tokens, options, eos_id, on_token, compile_step)
    rows = [
        _Row(index, _started(prompt, index, eos_id), derived_generator(seed, "sample", index))
        for index, prompt in enumerate(prompts)
    ]
    size = batch_size or max(len(rows), 1)
    with evaluation_mode(model):
        for first in range(0, len(rows), size):
            _decode(model, rows[first : first + size], request)
    return [row.generation(model.config.max_seq_len) for row in rows]


@dataclass(frozen=True)
class _Request:
    max_new_tokens: int
    options: SamplingOptions
    eos_id: int | None
    on_token: OnToken | None
    compile_step: bool


@dataclass
class _Row:
    """A prompt and what has been written after it."""

    index: int
    prompt: list[int]
    generator: torch.Generator
    tokens: list[int] = field(default_factory=list)
    finished: Finish = "length"

    def take(self, token: int, request: _Request) -> bool:
        """Records a drawn token; returns whether the row goes on."""
        if token == NOT_FINITE:
            raise NonFiniteError(
                f"prompt {self.index}: the logits after {len(self.tokens)} new tokens are not finite; the weights "
                "are damaged or overflow in this precision; use fp32 or an earlier checkpoint"
            )
        if token == request.eos_id:
            self.finished = "eos"
            return False
        self.tokens.append(token)
        if request.on_token is not None:
            request.on_token(self.index, token)
        return len(self.tokens) < request.max_new_tokens

    def generation(self, window: int) -> Generation:
        dropped = len(self.prompt) - len(fit_window(self.prompt, window))
        return Generation(self.tokens, self.finished, dropped)


def _decode(model: Decoder, rows: list[_Row], request: _Request) -> None:
    """Writes into the rows, all of them in one batch, until each is finished."""
    prompts = [row.prompt for row in rows]
    batch = DecodingBatch(model, prompts, request.max_new_tokens, compiled=request.compile_step)
    while rows:
        # The one place in a step where the host waits for the logits.
        drawn = sample(batch.logits, request.options, [row.generator for row in rows], batch.seen).tolist()
        going = [place for place, row in enumerate(rows) if row.take(drawn[place], request)]
        rows = [rows[place] for place in going]
        if rows:
            batch.keep(going)
            batch.append([drawn[place] for place in going])


def _started(prompt: Sequence[int], index: int, eos_id: int | None) -> list[int]:
    if prompt:
        return list(prompt)
    if eos_id is None:
        raise DataError(
            f"prompt {index} is empty and there is no end-of-document token to start from; give at least one token"
        )
    return [eos_id]


def _check_ids(prompts: Sequence[Sequence[int]], eos_id: int | None, vocab_size: int) -> None:
    way_out = f"but the model's vocabulary has {vocab_size} tokens; use the tokenizer the model was trained with"
    if eos_id is not None and not 0 <= eos_id < vocab_size:
        raise TokenizerError(f"the end-of-document token has id {eos_id}, {way_out}")
    for index, prompt in enumerate(prompts):
        outside = next((token for token in prompt if not 0 <= token < vocab_size), None)
        if outside is not None:
            raise DataError(f"prompt {index} holds token id {outside}, {way_out}")
