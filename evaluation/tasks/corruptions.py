from collections.abc import Callable, Sequence

from evaluation.tasks.sentences import ordered

Words = tuple[str, ...]
Corruption = Callable[[Words, tuple[int, ...]], Words | None]
"""(words, key of the draw) -> the words with one thing wrong; None: this sentence offers no such thing."""

_AGREEMENT = {
    "is": "are",
    "are": "is",
    "was": "were",
    "were": "was",
    "has": "have",
    "have": "has",
    "hath": "have",
    "does": "do",
    "doth": "do",
    "this": "these",
    "these": "this",
}
_CLASSES = (
    {"of", "to", "in", "on", "by", "at", "for", "with", "from", "upon", "into", "unto"},
    {"the", "his", "her", "our", "their", "these", "those"},
    {"or", "if", "as", "and", "but", "nor", "then", "when"},
    {"he", "we", "it", "me", "us", "she", "him", "they", "them"},
)
"""Function words that cannot stand for each other when they are of different classes."""
_FEWEST_SHUFFLED = 4


def swap_neighbours(words: Words, key: tuple[int, ...]) -> Words | None:
    """Two neighbouring words inside, neither with a mark, change places."""
    places = [
        place
        for place in range(1, len(words) - 2)
        if words[place].isalpha()
        and words[place + 1].isalpha()
        and words[place].lower() != words[place + 1].lower()
    ]
    if not places:
        return None
    at = places[ordered(len(places), *key)[0]]
    return (*words[:at], words[at + 1], words[at], *words[at + 2 :])


def shuffle(words: Words, key: tuple[int, ...]) -> Words | None:
    """All words but the first and the last stand in another order."""
    inside = words[1:-1]
    if len(inside) < _FEWEST_SHUFFLED or len(set(inside)) < 2:
        return None
    for attempt in range(len(inside)):
        mixed = tuple(inside[place] for place in ordered(len(inside), *key, attempt))
        if mixed != inside:
            return (words[0], *mixed, words[-1])
    return None


def break_agreement(words: Words, key: tuple[int, ...]) -> Words | None:
    """One English verb or determiner gets the other number, by a list: is, are; was, were; has, have; …"""
    places = [place for place in range(1, len(words) - 1) if words[place] in _AGREEMENT]
    if not places:
        return None
    at = places[ordered(len(places), *key)[0]]
    return (*words[:at], _AGREEMENT[words[at]], *words[at + 1 :])


def replace_function_word(words: Words, key: tuple[int, ...]) -> Words | None:
    """One English function word gives way to one of another class with as many letters."""
    options = [(place, other) for place in range(1, len(words) - 1) for other in _of_other_classes(words[place])]
    if not options:
        return None
    at, other = options[ordered(len(options), *key)[0]]
    return (*words[:at], other, *words[at + 1 :])


def _of_other_classes(word: str) -> Sequence[str]:
    if not any(word in one for one in _CLASSES):
        return ()
    return sorted(other for one in _CLASSES if word not in one for other in one if len(other) == len(word))


CORRUPTIONS: dict[str, Corruption] = {
    "swapped neighbours": swap_neighbours,
    "shuffled": shuffle,
    "number agreement": break_agreement,
    "function word": replace_function_word,
}
"""By what is wrong afterwards. All but the agreement keep the sentence's length in bytes."""
