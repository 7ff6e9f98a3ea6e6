from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from parallax.data.tokenizer import Tokenizer
from parallax.errors import NonFiniteError, TokenizerError
from parallax.model.decoder import Decoder
from parallax.model.head import IGNORE_INDEX, HeadOutput
from parallax.model.mode import evaluation_mode

_PADDING = 0


@dataclass(frozen=True)
class _Row:
    """Tokens for one forward."""

    text: int
    """Which text they belong to."""
    inputs: list[int]
    targets: list[int]


def score(
    model: Decoder,
    tokenizer: Tokenizer,
    texts: Sequence[tuple[str, str]],
    *,
    batch_size: int = 32,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> npt.NDArray[np.float64]:
    """Nats that a model needs for each continuation after its context: -log p(continuation | context).

    Context and continuation are encoded each by itself; an empty context is the end of the document before.
    Where both do not fit the window, the context's oldest tokens are left out; a continuation longer than that is
    read in steps of half a window.

    Args:
        model: all of it on one device.
        tokenizer: its own.
        texts: (context, continuation).
        batch_size: rows at a time; sorted by length and padded on the right, which causality keeps out of sight.
        progress: called with the rows done and how many there are.

    Returns:
        (N,) nats.

    Raises:
        TokenizerError: the tokenizer cannot write a text, or has more ids than the model.
        NonFiniteError: the model's loss is NaN or infinite.
    """
    rows = sorted(_rows(model, tokenizer, texts), key=lambda row: len(row.inputs))
    device = model.embedding.weight.device
    nats = np.zeros(len(texts))
    with evaluation_mode(model), torch.no_grad():
        for first in range(0, len(rows), batch_size):
            batch = rows[first : first + batch_size]
            longest = len(batch[-1].inputs)
            tokens = torch.tensor([row.inputs + [_PADDING] * (longest - len(row.inputs)) for row in batch])
            targets = torch.tensor([row.targets + [IGNORE_INDEX] * (longest - len(row.targets)) for row in batch])
            output: HeadOutput = model(tokens.to(device), targets.to(device), per_token=True)
            assert output.token_nll is not None
            np.add.at(nats, [row.text for row in batch], output.token_nll.double().sum(1).cpu().numpy())
            progress(min(first + batch_size, len(rows)), len(rows))
    if not np.isfinite(nats).all():
        raise NonFiniteError("the model's loss is not finite; the weights are damaged or the dtype overflows")
    return nats


def encode(tokenizer: Tokenizer, texts: Sequence[str], vocab_size: int) -> list[list[int]]:
    """Token ids of each text.

    Raises:
        TokenizerError: it has no token for something in a text, or ids that the model lacks.
    """
    found = [[int(token) for token in ids] for ids in tokenizer.encode_batch(list(texts))]
    for text, ids in zip(texts, found, strict=True):
        if tokenizer.unknown_id is not None and tokenizer.unknown_id in ids:
            raise TokenizerError(
                f"the model's tokenizer has no token for {_first_unknown(tokenizer, text)!r} in {text[:60]!r}; "
                "give text like what it was trained on"
            )
        if ids and max(ids) >= vocab_size:
            raise TokenizerError(
                f"the tokenizer gives id {max(ids)}, but the model's vocabulary has {vocab_size} tokens; use the "
                "tokenizer the model was trained with"
            )
    return found


def _first_unknown(tokenizer: Tokenizer, text: str) -> str:
    alone = (character for character in text if tokenizer.unknown_id in tokenizer.encode(character).tolist())
    return next(alone, text)


def _rows(model: Decoder, tokenizer: Tokenizer, texts: Sequence[tuple[str, str]]) -> list[_Row]:
    vocab_size, window = model.config.vocab_size, model.config.max_seq_len
    contexts = encode(tokenizer, [context for context, _ in texts], vocab_size)
    continuations = encode(tokenizer, [continuation for _, continuation in texts], vocab_size)
    found: list[_Row] = []
    for number, (context, continuation) in enumerate(zip(contexts, continuations, strict=True)):
        read = context or [tokenizer.eos_id]
        found += _cut(number, read + continuation, len(read), window)
    return found


def _cut(text: int, ids: list[int], start: int, window: int) -> list[_Row]:
    """Rows that predict ids[start:], each token once."""
    found: list[_Row] = []
    while start < len(ids):
        stop = len(ids) if len(ids) - start <= window else start + max(window // 2, 1)
        first = max(0, stop - 1 - window)
        targets = [IGNORE_INDEX] * (start - first - 1) + ids[start:stop]
        found.append(_Row(text, ids[first : stop - 1], targets))
        start = stop
    return found
