from collections.abc import Sequence

from evaluation.tasks.items import CLOZE, Item, enough
from evaluation.tasks.sentences import Material, ordered

NUM_CHOICES = 4
_SHORTEST_WORD = 3
_FACTOR = 2
"""How many times as frequent a wrong word may be as the right one, or the other way round."""
_SALT, _CHOICE_SALT, _PLACE_SALT = 1, 2, 3


def build_cloze(material: Material, num_items: int, seed: int) -> list[Item]:
    """Sentences without their last word, each with 4 words to choose from that are about as frequent.

    The wrong ones end other sentences of the text, so that they could stand there, and occur in it between half
    and twice as often as the right one. All choices keep the marks that end the sentence.

    Raises:
        DataError: the text has too few such sentences.
    """
    sentences = material.sentences
    endings = sorted({sentence.last[0] for sentence in sentences if _is_usable(sentence.last[0])})
    found: list[Item] = []
    for number in ordered(len(sentences), seed, _SALT):
        sentence = sentences[number]
        word, marks = sentence.last
        if len(found) == num_items:
            break
        if not _is_usable(word) or sentence.words[-1] != word + marks:
            continue
        others = _matched(word, endings, material, (seed, _CHOICE_SALT, number))
        if len(others) < NUM_CHOICES - 1:
            continue
        choices = [word, *others]
        places = ordered(NUM_CHOICES, seed, _PLACE_SALT, number)
        found.append(
            Item(
                suite=CLOZE,
                kind="last word",
                context=" ".join((sentence.context, *sentence.words[:-1])),
                choices=tuple(f" {choices[place]}{marks}" for place in places),
                answer=places.index(0),
            )
        )
    return enough(found, num_items, "cloze")


def _is_usable(word: str) -> bool:
    return word.islower() and len(word) >= _SHORTEST_WORD


def _matched(word: str, endings: Sequence[str], material: Material, key: tuple[int, ...]) -> list[str]:
    """Up to 3 other words of like frequency."""
    count = material.frequencies[word]
    near = [
        other
        for other in endings
        if other != word and count <= _FACTOR * material.frequencies[other] <= _FACTOR**2 * count
    ]
    return [near[place] for place in ordered(len(near), *key)[: NUM_CHOICES - 1]]
