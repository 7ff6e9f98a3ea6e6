from evaluation.tasks.corruptions import CORRUPTIONS, Corruption
from evaluation.tasks.items import PAIRS, Item, enough
from evaluation.tasks.sentences import Material, ordered

_SALT, _DRAW_SALT = 11, 12


def build_pairs(material: Material, num_items: int, seed: int) -> list[Item]:
    """For each kind of corruption, real sentences beside themselves with that one thing wrong.

    Where a corruption changes the length, as many pairs get longer as get shorter or stay (odd numbers: one more
    of the latter).

    Raises:
        DataError: the text has too few sentences for a kind.
    """
    found: list[Item] = []
    for number, (kind, corrupt) in enumerate(CORRUPTIONS.items()):
        found += _of_kind(material, num_items, kind, corrupt, (seed, _SALT, number))
    return found


def _of_kind(
    material: Material, num_items: int, kind: str, corrupt: Corruption, key: tuple[int, ...]
) -> list[Item]:
    sentences = material.sentences
    longer: list[Item] = []
    others: list[Item] = []
    changes_length = False
    for number in ordered(len(sentences), *key):
        if len(others) >= num_items and (len(longer) >= num_items or not changes_length):
            break
        sentence = sentences[number]
        wrong = corrupt(sentence.words, (*key, _DRAW_SALT, number))
        if wrong is None:
            continue
        texts = tuple(" " + " ".join(words) for words in (sentence.words, wrong))
        growth = len(texts[1].encode()) - len(texts[0].encode())
        changes_length = changes_length or growth != 0
        (longer if growth > 0 else others).append(Item(PAIRS, kind, sentence.context, texts))
    if not changes_length:
        return enough(others, num_items, kind)
    half = num_items // 2
    balanced = [*longer[:half], *others[: num_items - half]]
    return enough(balanced, num_items, f"{kind}, half of them longer than the sentence")
