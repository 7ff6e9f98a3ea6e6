import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from evaluation.tasks.choices import Share, wilson
from evaluation.tasks.items import Item
from evaluation.tasks.score import encode
from evaluation.tasks.write_text import write
from parallax.data.tokenizer import Tokenizer
from parallax.generate.sampling import SamplingOptions
from parallax.model.decoder import Decoder

_FIRST_WORD = re.compile(r"\s*([^\W\d_]+(?:['’-][^\W\d_]+)*)")


@dataclass(frozen=True)
class ExactMatch:
    """Cloze without choices: the word that the model itself goes on with."""

    items: int
    share: Share
    """Of the items where it is the text's."""
    commonest: float
    """The share that one gets who always says the commonest answer: what chance means here."""
    words: list[str]
    """What was said, item by item."""


def match_exactly(model: Decoder, tokenizer: Tokenizer, items: Sequence[Item], *, batch_size: int) -> ExactMatch:
    """Greedy continuations of cloze items; the first word has to be the answer, letter for letter.

    Raises:
        TokenizerError: the tokenizer cannot write an item.
        NonFiniteError: the model's logits are NaN or infinite.
    """
    answers = [item.choices[item.answer] for item in items]
    new_tokens = max(map(len, encode(tokenizer, answers, model.config.vocab_size))) + 1
    texts = write(
        model,
        tokenizer,
        [item.context for item in items],
        new_tokens,
        SamplingOptions(temperature=0),
        seed=0,
        batch_size=batch_size,
    )
    said, wanted = ([_first_word(text) for text in column] for column in (texts, answers))
    hits = sum(one == other for one, other in zip(said, wanted, strict=True))
    commonest = Counter(wanted).most_common(1)[0][1]
    return ExactMatch(len(items), wilson(hits, len(items)), commonest / len(items), said)


def _first_word(text: str) -> str:
    found = _FIRST_WORD.match(text)
    return found[1] if found else ""
