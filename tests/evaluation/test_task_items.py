"""Items: made of the text by stated rules, the same for every model."""

import json
import re
from collections import Counter
from pathlib import Path

import pytest

from evaluation.tasks.cloze import build_cloze
from evaluation.tasks.corruptions import break_agreement, replace_function_word, shuffle, swap_neighbours
from evaluation.tasks.items import CLOZE, GENERATION, PAIRS, SUITES, Item, fingerprint, read_items, to_jsonl
from evaluation.tasks.pairs import build_pairs
from evaluation.tasks.sentences import Material, build_material
from evaluation.tasks.suites import build_items
from parallax.errors import ConfigError, DataError

NOUNS = ("horse", "river", "stone", "garden", "letter", "window", "farmer", "winter", "mountain", "candle")
VERBS = ("was", "were", "is", "are")
FIRST_ITEMS = "c7e7be2c2bccb3b6b8cc29442168ac6e7423387fa7b984ecea920de181a68b6f"


def prose(count: int = 240) -> str:
    """Sentences of plain words, four to a paragraph, no two alike; every noun ends equally many."""
    sentences = [
        f"And the {NOUNS[n % 10]} of {NOUNS[(n // 10) % 10]} number {'abcdefghij'[n % 7]} {VERBS[n % 4]} seen "
        f"by him {'xyzuvw'[n % 6]} and {'klmnop'[n // 40]} near the {NOUNS[(3 * n + n // 10) % 10]}."
        for n in range(count)
    ]
    paragraphs = ["\n".join(sentences[start : start + 4]) for start in range(0, count, 4)]
    return "\n\n".join(paragraphs) + "\n"


def split(text: str) -> tuple[str, ...]:
    return tuple(text.split(" "))


@pytest.fixture(scope="module")
def material() -> Material:
    return build_material([prose()])


def test_sentences_are_plain_words_with_the_text_before_them() -> None:
    text = (
        "It was so. The man [was] old, and he\nsaid it again. In 1912 the man went far away. He said no. "
        "Then came “the others”, all of them, at once!\n\nThis paragraph begins with what has nothing before it. "
        "but this sentence has no capital at all."
    )
    found = build_material([text]).sentences
    assert [" ".join(sentence.words) for sentence in found] == [
        "The man [was] old, and he said it again.",
        "Then came “the others”, all of them, at once!",
    ]
    assert found[0].context == "It was so."
    assert found[1].context.endswith("said it again. In 1912 the man went far away. He said no.")
    assert found[0].last == ("again", ".")


def test_a_context_begins_with_a_whole_word_and_is_what_the_text_has(material: Material) -> None:
    for sentence in material.sentences:
        whole = f"{sentence.context} {' '.join(sentence.words)}"
        [block] = [block for block in material.blocks if whole in block]
        at = block.index(whole)
        assert at == 0 or block[at - 1] == " "
        assert 0 < len(sentence.context) <= 200


@pytest.mark.parametrize("suite", SUITES)
def test_the_same_text_and_seed_give_the_same_items_and_another_seed_others(
    suite: str, material: Material
) -> None:
    one, two, other = (build_items(build_material([prose()]), [suite], 20, 5, seed) for seed in (0, 0, 1))
    assert one == two
    assert fingerprint(one) == fingerprint(two) != fingerprint(other)
    assert {item.suite for item in one} == {suite}


def test_items_do_not_change_from_one_version_to_the_next(material: Material) -> None:
    found = fingerprint(build_items(material, list(SUITES), 20, 5, 0))
    assert found == FIRST_ITEMS, "models that were asked earlier were asked something else"


def test_a_cloze_asks_for_the_last_word_among_others_that_end_sentences_and_are_as_frequent(
    material: Material,
) -> None:
    found = build_cloze(material, 50, seed=0)
    endings = {sentence.last[0] for sentence in material.sentences}
    text = "\n".join(material.blocks)
    for item in found:
        assert item.context + item.choices[item.answer] in text
        words = [choice.strip(" .") for choice in item.choices]
        assert len(set(words)) == 4
        assert set(words) <= endings
        right = material.frequencies[words[item.answer]]
        assert all(right / 2 <= material.frequencies[word] <= 2 * right for word in words)
    places = Counter(item.answer for item in found)
    assert set(places) == {0, 1, 2, 3}


def test_a_word_that_nothing_matches_in_frequency_is_not_asked_for() -> None:
    text = "".join(
        f"He saw the one {NOUNS[n % 3]} of {n % 3 * 'a'}them in the {NOUNS[n % 3]}. " for n in range(60)
    )
    assert len({sentence.last for sentence in build_material([text]).sentences}) == 3
    with pytest.raises(DataError, match=r"gives 0 of 1 items of cloze; .*leave this suite out of --tasks"):
        build_cloze(build_material([text]), 1, seed=0)


def test_words_that_are_much_rarer_or_commoner_are_not_among_the_choices() -> None:
    counts = dict(zip(NOUNS[:6], (4, 4, 5, 6, 15, 1), strict=True))
    endings = [noun for noun, count in counts.items() for _ in range(count)]
    text = " ".join(
        f"He saw {chr(97 + n % 26)}{chr(97 + n // 26)} of them in the {noun}."
        for n, noun in enumerate(["it", *endings])
    )
    items = build_cloze(build_material([text]), 19, seed=0)
    assert {choice.strip(" .") for item in items for choice in item.choices} == set(NOUNS[:4])


def test_the_other_sentence_of_a_pair_has_one_thing_wrong(material: Material) -> None:
    found = build_pairs(material, 30, seed=0)
    kinds = Counter(item.kind for item in found)
    assert kinds == dict.fromkeys(("swapped neighbours", "shuffled", "number agreement", "function word"), 30)
    text = "\n".join(material.blocks)
    for item in found:
        right, wrong = item.choices
        assert item.answer == 0
        assert item.context + right in text
        assert right != wrong
        if item.kind != "number agreement":
            assert len(right.encode()) == len(wrong.encode())
        changed = sum(a != b for a, b in zip(right.split(), wrong.split(), strict=True))
        limits = {"swapped neighbours": (2, 2), "shuffled": (2, 30)}.get(item.kind, (1, 1))
        assert limits[0] <= changed <= limits[1], item
        if changed > 1:
            assert sorted(right.split()) == sorted(wrong.split())


def test_as_many_pairs_get_longer_as_shorter(material: Material) -> None:
    pairs = [item.choices for item in build_pairs(material, 30, seed=0) if item.kind == "number agreement"]
    longer = sum(len(wrong) > len(right) for right, wrong in pairs)
    assert longer == 15


def test_corruptions_by_hand() -> None:
    words = split("He saw that this is good, of them.")
    assert break_agreement(split("So he was here again."), (0,)) == split("So he were here again.")
    assert break_agreement(("Was", "it", "so?"), (0,)) is None
    drawn = {replace_function_word(words, (key,)) for key in range(60)}
    places = {next(at for at, word in enumerate(one) if word != words[at]) for one in drawn if one}
    assert places == {6}, "only 'of' is a function word with others of its length in another class"
    assert {one[6] for one in drawn if one} == {"or", "if", "as", "he", "we", "it", "me", "us"}
    assert {swap_neighbours(words, (key,)) for key in range(40)} == {
        split("He that saw this is good, of them."),
        split("He saw this that is good, of them."),
        split("He saw that is this good, of them."),
    }
    assert swap_neighbours(("It", "is", "is", "so."), (0,)) is None
    mixed = shuffle(words, (0,))
    assert mixed is not None
    assert (mixed[0], mixed[-1]) == ("He", "them.")
    assert mixed != words
    assert shuffle(("A", "b", "b", "b", "b", "c."), (0,)) is None


def test_continuations_are_stretches_of_the_text_that_do_not_overlap() -> None:
    numbered = " ".join(f"w{n}" for n in range(1000))
    found = build_items(build_material([numbered]), [GENERATION], 1, 13, 0)
    spans = []
    for item in found:
        words = (item.context + item.choices[0]).split(" ")
        assert len(words) == 72
        first = int(words[0][1:])
        assert words == [f"w{n}" for n in range(first, first + 72)]
        spans.append(first)
    assert all(first % 72 == 0 for first in spans)
    assert len(set(spans)) == 13
    with pytest.raises(
        DataError, match="gives 13 of 14 items of generation; give more text, or --texts 13 or fewer"
    ):
        build_items(build_material([numbered]), [GENERATION], 1, 14, 0)


def test_a_text_too_short_says_how_many_items_it_gives(material: Material) -> None:
    with pytest.raises(
        DataError, match=r"the text gives \d+ of 5000 items of cloze; .*--items \d+ or fewer"
    ) as caught:
        build_cloze(material, 5000, seed=0)
    possible = int(re.findall(r"gives (\d+)", str(caught.value))[0])
    assert len(build_cloze(material, possible, seed=0)) == possible
    with pytest.raises(ConfigError, match="--tasks riddles: expected cloze, minimal_pairs, generation"):
        build_items(material, ["riddles"], 1, 1, 0)


def test_items_are_read_back_and_damage_is_seen(material: Material, tmp_path: Path) -> None:
    items = build_items(material, [CLOZE, PAIRS], 5, 2, 0)
    file = tmp_path / "items.jsonl"
    file.write_text(to_jsonl(items), encoding="utf-8")
    assert read_items(file) == items
    good = json.loads(to_jsonl(items[:1]))
    for damage in (
        '{"suite": "cl',
        "[]",
        json.dumps(good | {"answer": 9}),
        json.dumps(good | {"suite": "riddle"}),
    ):
        file.write_text(to_jsonl(items[:2]) + damage + "\n", encoding="utf-8")
        with pytest.raises(DataError, match=r"items.jsonl, line 3: damaged"):
            read_items(file)
    file.write_text("")
    for path, what in ((file, "no items in it"), (tmp_path / "none.jsonl", "cannot be read")):
        with pytest.raises(DataError, match=what):
            read_items(path)


def test_an_item_is_one_line() -> None:
    assert to_jsonl([Item("cloze", "last word", "a\nb", (" c", " d"))]).count("\n") == 1
