from evaluation.tasks.items import GENERATION, Item, enough
from evaluation.tasks.sentences import Material, ordered

PROMPT_WORDS, CONTINUED_WORDS = 24, 48
_SALT = 21


def build_continuations(material: Material, num_items: int, seed: int) -> list[Item]:
    """Stretches of text that do not overlap: 24 words to go on from, and the 48 that the text goes on with.

    Raises:
        DataError: the text is too short.
    """
    length = PROMPT_WORDS + CONTINUED_WORDS
    stretches = [
        words[start : start + length]
        for blocks in material.documents
        for words in [" ".join(blocks).split(" ")]
        for start in range(0, len(words) - length + 1, length)
    ]
    found = [
        Item(GENERATION, "continuation", " ".join(words[:PROMPT_WORDS]), (" " + " ".join(words[PROMPT_WORDS:]),))
        for words in (stretches[place] for place in ordered(len(stretches), seed, _SALT))
    ]
    return enough(found, num_items, "generation")
