from collections.abc import Sequence

from evaluation.arguments import check_names
from evaluation.tasks.cloze import build_cloze
from evaluation.tasks.continuations import build_continuations
from evaluation.tasks.items import CLOZE, GENERATION, PAIRS, SUITES, Item
from evaluation.tasks.pairs import build_pairs
from evaluation.tasks.sentences import Material


def build_items(
    material: Material, suites: Sequence[str], num_items: int, num_texts: int, seed: int
) -> list[Item]:
    """The items of the suites that were asked for; of the same text, numbers and seed always the same.

    Args:
        material: the text.
        suites: of `SUITES`.
        num_items: of each kind of question.
        num_texts: of the texts to be continued.
        seed: which sentences are taken, and what is done to them.

    Raises:
        DataError: the text is too short for so many.
        ConfigError: an unknown suite.
    """
    check_suites(suites)
    found: list[Item] = []
    if CLOZE in suites:
        found += build_cloze(material, num_items, seed)
    if PAIRS in suites:
        found += build_pairs(material, num_items, seed)
    if GENERATION in suites:
        found += build_continuations(material, num_texts, seed)
    return found


def check_suites(suites: Sequence[str]) -> None:
    """Checks the names.

    Raises:
        ConfigError: one is unknown.
    """
    check_names(suites, SUITES, "--tasks")
