"""Scores against plain probabilities, and models of which the answers are known."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from test_task_items import prose
from torch import Tensor, nn

from evaluation.tasks.choices import judge, summarise, wilson
from evaluation.tasks.items import CLOZE, PAIRS, Item
from evaluation.tasks.measure import measure_tasks
from evaluation.tasks.repetition import longest_repeat, measure_repetition
from evaluation.tasks.score import score
from evaluation.tasks.sentences import build_material
from evaluation.tasks.suites import build_items
from evaluation.tasks.write_text import REAL
from parallax.config.models.dual_track import DualTrackConfig
from parallax.data.build_tokenizer import train_char
from parallax.data.byte_tokenizer import ByteTokenizer
from parallax.errors import NonFiniteError, TokenizerError
from parallax.model.dual_track import DualTrack
from parallax.model.head import IGNORE_INDEX, HeadOutput
from parallax.model.registry import build_model, materialize


def byte_model(*, dtype: torch.dtype = torch.float64, **changes: Any) -> DualTrack:
    sizes: dict[str, Any] = {
        "num_layers": 1,
        "num_heads": 2,
        "hidden_size": 32,
        "vocab_size": 257,
        "max_seq_len": 512,
    }
    model = build_model(DualTrackConfig(**(sizes | changes))).to(dtype)
    return materialize(model, "cpu", seed=0).eval()


def zero_head(model: DualTrack) -> DualTrack:
    with torch.no_grad():
        model.head.weight.zero_()
    return model


@torch.no_grad()
def plain_nats(model: DualTrack, context: Sequence[int], continuation: Sequence[int]) -> float:
    ids = torch.tensor([[*context, *continuation]])
    logits = model(ids[:, :-1]).log_softmax(-1)[0]
    return -sum(logits[len(context) - 1 + n, token].item() for n, token in enumerate(continuation))


TEXTS = [("In the", " beginning"), ("x", " y"), ("A longer context, by far,", " z"), ("", "It was so.")]


@pytest.mark.parametrize("batch_size", [1, 3, 32])
def test_a_score_is_the_sum_of_log_probabilities_after_the_context(batch_size: int) -> None:
    model = byte_model()
    expected = [
        plain_nats(model, [int(byte) for byte in context.encode()] or [256], list(continuation.encode()))
        for context, continuation in TEXTS
    ]
    assert score(model, ByteTokenizer(), TEXTS, batch_size=batch_size) == pytest.approx(expected, rel=1e-10)


def test_a_context_too_long_loses_its_oldest_tokens() -> None:
    model = byte_model(max_seq_len=16)
    found = score(model, ByteTokenizer(), [("0123456789abcdefghij", " word")])
    # 5 targets and a window of 16 inputs leave 12 tokens of context.
    assert found[0] == pytest.approx(plain_nats(model, b"89abcdefghij", b" word"))


def test_a_continuation_longer_than_the_window_is_read_in_steps_of_half_of_it() -> None:
    model = byte_model(max_seq_len=8)
    text = b"abcdefghijklmnopqr"
    found = score(model, ByteTokenizer(), [("0123456789", text.decode())])
    expected = (
        plain_nats(model, b"56789", text[:4])
        + plain_nats(model, b"9abcd", text[4:8])
        + plain_nats(model, b"defgh", text[8:12])
        # 6 are left and fit a window.
        + plain_nats(model, b"jkl", text[12:])
    )
    assert found[0] == pytest.approx(expected)


def test_a_model_that_knows_nothing_gets_exactly_what_guessing_gets() -> None:
    items = build_items(build_material([prose()]), [CLOZE, PAIRS], 30, 4, 0)
    model = zero_head(byte_model(dtype=torch.float32))
    report = measure_tasks(model, ByteTokenizer(), items, source="", text="")
    assert {one.suite for one in report.accuracies} == {CLOZE, PAIRS}
    for one in report.accuracies:
        assert one.accuracy.value == one.chance == (0.25 if one.suite == CLOZE else 0.5)
        assert one.accuracy.low < one.chance < one.accuracy.high
        assert one.bits_per_byte == pytest.approx(math.log2(257), rel=1e-6)


def test_a_uniform_model_of_bytes_alone_needs_eight_bits_a_byte() -> None:
    items = build_items(build_material([prose()]), [PAIRS], 10, 2, 0)
    model = zero_head(byte_model(vocab_size=256))
    report = measure_tasks(model, ByteTokenizer(), items, source="", text="")
    assert [one.bits_per_byte for one in report.accuracies] == pytest.approx([8.0] * 4, rel=1e-12)


PAGE = " ".join(prose(16).split())


class Memory(nn.Module):
    """Knows one text by heart: predicts what follows the longest stretch that it recognises, nearly surely."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text = text.encode()
        self.config = byte_model().config
        self.embedding = nn.Embedding(1, 1)

    def forward(self, tokens: Tensor, targets: Tensor, per_token: bool) -> HeadOutput:
        nll = torch.zeros(targets.shape, dtype=torch.float64)
        for row, place in (targets != IGNORE_INDEX).nonzero().tolist():
            target = bytes([int(targets[row, place])])
            nll[row, place] = 0.01 if target == self.next(bytes(tokens[row, : place + 1].tolist())) else 8.0
        return HeadOutput(*[nll.sum()] * 5, nll)

    def next(self, seen: bytes) -> bytes:
        stretch = next(seen[start:] for start in range(len(seen) + 1) if seen[start:] in self.text[:-1])
        at = self.text.index(stretch) + len(stretch)
        return self.text[at : at + 1]


def test_a_model_that_knows_the_text_by_heart_is_always_right() -> None:
    items = build_items(build_material([PAGE]), [CLOZE, PAIRS], 6, 1, 0)
    texts = [(item.context, choice) for item in items for choice in item.choices]
    found = summarise(judge(items, score(Memory(PAGE), ByteTokenizer(), texts).tolist()))
    assert [one.accuracy.value for one in found] == [1.0] * 5
    assert [one.bits_per_byte for one in found] == pytest.approx([0.01 / math.log(2)] * 5)


@pytest.mark.product
def test_a_model_that_has_learned_the_text_by_heart_says_its_words() -> None:
    model = byte_model(dtype=torch.float32, hidden_size=64, max_seq_len=256)
    page = " ".join(prose(8).split())
    text = torch.tensor(list(page.encode()))
    generator = torch.Generator().manual_seed(0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3)
    steps = 140
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = 4e-3 * min(1, (step + 1) / 20, (steps - step) / 40)
        starts = torch.randint(len(text) - 256, (4,), generator=generator).tolist()
        rows = torch.stack([text[start : start + 257] for start in starts])
        output = model(rows[:, :-1], rows[:, 1:])
        (output.objective_sum / output.token_count).backward()
        optimizer.step()
        optimizer.zero_grad()
    items = build_items(build_material([page]), [CLOZE, PAIRS], 6, 2, 0)
    report = measure_tasks(model, ByteTokenizer(), items, source="", text="")
    for one in report.accuracies:
        assert one.accuracy.value == 1, one
        assert one.bits_per_byte < 0.5
    assert report.exact is not None
    assert report.exact.share.value > 0.8 > report.exact.commonest


def test_ties_share_the_credit_and_the_fewest_bits_per_byte_win() -> None:
    item = Item("cloze", "k", "", (" ab", " cdefg", " hi"), answer=1)
    nats = [3.0, 6.0, 3.0]
    assert judge([item], nats)[0].credit == pytest.approx(1 / 3), "1 nat a byte each"
    assert judge([item], [3.0, 5.9, 3.0])[0].credit == 1
    assert judge([item], [3.0, 6.1, 3.0])[0].credit == 0
    assert judge([item], [2.9, 6.0, 2.9])[0].credit == 0
    assert judge([item], nats)[0].bits_per_byte == pytest.approx((1 / math.log(2),) * 3)


def test_a_summary_has_a_line_for_each_kind_and_weighs_bytes() -> None:
    pairs = [
        Item("minimal_pairs", kind, "", (right, "x" * len(right)))
        for kind, right in (("a", "abcd"), ("a", "ab"), ("b", "abcd"))
    ]
    found = summarise(judge(pairs, [4.0, 5.0, 4.0, 3.0, 2.0, 1.0]))
    assert [(one.kind, one.items, one.accuracy.value, one.chance) for one in found] == [
        ("a", 2, 0.5, 0.5),
        ("b", 1, 0.0, 0.5),
    ]
    assert found[0].bits_per_byte == pytest.approx(8.0 / 6 / math.log(2))


@pytest.mark.parametrize(("hits", "trials"), [(0, 10), (3, 10), (10, 10), (117, 200)])
def test_the_interval_is_wilsons(hits: int, trials: int) -> None:
    expected = stats.binomtest(hits, trials).proportion_ci(0.95, method="wilson")
    found = wilson(hits, trials)
    assert found == pytest.approx((hits / trials, expected.low, expected.high), abs=1e-12)
    assert wilson(0.5, 1).low == pytest.approx(1 - wilson(0.5, 1).high)


def test_text_that_goes_in_circles_repeats_itself_more_than_real_text() -> None:
    material = build_material([prose()])
    real = [item.choices[0].split() for item in build_items(material, ["generation"], 1, 6, 0)]
    looped = [(words[:6] * 8)[: len(words)] for words in real]
    one, two = measure_repetition(real), measure_repetition(looped)
    assert one.words == two.words == 6 * 48
    for size in (2, 3, 4):
        assert one.repeated[size].high < two.repeated[size].low
    assert two.repeated[2].value == pytest.approx(41 / 47), "47 pairs of words, 6 of them new"
    assert one.longest_repeat.value < two.longest_repeat.value == 42
    assert all(one.distinct[size] > two.distinct[size] for size in (1, 2, 3))


def test_repetition_by_hand() -> None:
    texts = [["a", "b", "a", "b", "a"], ["c", "d", "e", "f", "a"]]
    found = measure_repetition(texts)
    assert found.repeated[2].value == pytest.approx(2 / 8)
    assert found.repeated[4].value == 0
    assert found.distinct == {1: 6 / 10, 2: 6 / 8, 3: 5 / 6}
    assert found.longest_repeat.value == pytest.approx((3 + 0) / 2)
    rng = np.random.default_rng(0)
    for _ in range(50):
        words = rng.choice(["x", "y"], size=rng.integers(1, 14)).tolist()
        plain = max(
            (
                n
                for n in range(len(words))
                for i in range(len(words))
                for j in range(i)
                if max(i, j) + n <= len(words) and words[i : i + n] == words[j : j + n]
            ),
            default=0,
        )
        assert longest_repeat(words) == plain


def test_a_model_that_writes_too_little_is_compared_in_nothing() -> None:
    items = build_items(build_material([prose()]), ["generation"], 1, 3, 0)
    model = byte_model(dtype=torch.float32)
    with torch.no_grad():
        model.norm.weight.zero_()
        # All logits are 0, so the greedy choice is byte 0 again and again: one word.
    report = measure_tasks(model, ByteTokenizer(), items, source="", text="", temperatures=(0,))
    assert report.written is not None
    assert list(report.written.texts) == [REAL, "greedy"]
    assert report.written.compared == 0
    assert report.written.repetition == {}


def test_a_tokenizer_without_a_character_is_refused_by_name() -> None:
    tokenizer = train_char(["abc "])
    model = byte_model(vocab_size=tokenizer.vocab_size)
    assert score(model, tokenizer, [("a b", " c")]).shape == (1,)
    with pytest.raises(TokenizerError, match="no token for 'ß' in ' cabß'"):
        score(model, tokenizer, [("a b", " cabß")])
    with pytest.raises(TokenizerError, match="gives id 195, but the model's vocabulary has 100 tokens"):
        score(byte_model(vocab_size=100), ByteTokenizer(), [("a", "é")])


def test_broken_weights_are_said() -> None:
    model = byte_model()
    with torch.no_grad():
        model.norm.weight.fill_(math.nan)
    with pytest.raises(NonFiniteError, match="loss is not finite"):
        score(model, ByteTokenizer(), TEXTS)
