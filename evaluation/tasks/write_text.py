from collections.abc import Sequence
from dataclasses import dataclass

from evaluation.tasks.continuations import CONTINUED_WORDS
from evaluation.tasks.items import Item
from evaluation.tasks.repetition import Repetition, measure_repetition
from evaluation.tasks.score import encode
from parallax.data.tokenizer import Tokenizer
from parallax.generate.decode import generate
from parallax.generate.sampling import SamplingOptions
from parallax.model.decoder import Decoder

REAL = "the text itself"
_FEWEST_WORDS = 8
_SPARE = 1.25
"""Tokens asked for, over those of the longest real continuation."""


@dataclass(frozen=True)
class Written:
    """What a model wrote beside what the text goes on with."""

    texts: dict[str, list[str]]
    """Way of drawing -> one continuation for each item; `REAL` -> those of the text."""
    repetition: dict[str, Repetition]
    """Of the same, each cut to as many words as all ways have for that item; empty where too few are left."""
    compared: int
    """Items with at least 8 words in every way of drawing."""


def continue_texts(
    model: Decoder,
    tokenizer: Tokenizer,
    items: Sequence[Item],
    temperatures: Sequence[float],
    *,
    seed: int,
    batch_size: int,
) -> Written:
    """Lets a model go on from each item's context, and measures how much each way of drawing repeats itself.

    Raises:
        ConfigError: an impossible temperature.
        TokenizerError: the tokenizer cannot write an item.
        NonFiniteError: the model's logits are NaN or infinite.
    """
    texts = {REAL: [item.choices[0] for item in items]}
    new_tokens = int(_SPARE * max(map(len, encode(tokenizer, texts[REAL], model.config.vocab_size))))
    for temperature in temperatures:
        name = f"temperature {temperature:g}" if temperature else "greedy"
        texts[name] = write(
            model,
            tokenizer,
            [item.context for item in items],
            new_tokens,
            SamplingOptions(temperature=temperature),
            seed=seed,
            batch_size=batch_size,
        )
    words = {name: [text.split()[:CONTINUED_WORDS] for text in column] for name, column in texts.items()}
    lengths = [min(map(len, row)) for row in zip(*words.values(), strict=True)]
    kept = [number for number, length in enumerate(lengths) if length >= _FEWEST_WORDS]
    cut = {name: [column[number][: lengths[number]] for number in kept] for name, column in words.items()}
    measured = {name: measure_repetition(column) for name, column in cut.items()} if len(kept) > 1 else {}
    return Written(texts, measured, len(kept))


def write(
    model: Decoder,
    tokenizer: Tokenizer,
    prompts: Sequence[str],
    new_tokens: int,
    options: SamplingOptions,
    *,
    seed: int,
    batch_size: int,
) -> list[str]:
    """What a model writes after each prompt; prompts lose their oldest tokens where both do not fit the window."""
    room = max(1, model.config.max_seq_len - new_tokens)
    ids = [prompt[-room:] for prompt in encode(tokenizer, prompts, model.config.vocab_size)]
    written = generate(
        model,
        ids,
        max_new_tokens=new_tokens,
        options=options,
        seed=seed,
        eos_id=tokenizer.eos_id,
        batch_size=batch_size,
    )
    return [tokenizer.decode(row.tokens) for row in written]
