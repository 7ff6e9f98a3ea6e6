from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from evaluation.output import plain
from evaluation.tasks.choices import Accuracy, Judged, judge, summarise
from evaluation.tasks.exact import ExactMatch, match_exactly
from evaluation.tasks.items import CLOZE, GENERATION, Item, fingerprint
from evaluation.tasks.score import score
from evaluation.tasks.write_text import Written, continue_texts
from parallax.data.tokenizer import Tokenizer
from parallax.errors import ConfigError
from parallax.model.decoder import Decoder


@dataclass(frozen=True)
class TaskReport:
    """What a model made of its items."""

    model: str
    text: str
    """Where the items come from."""
    items_sha256: str
    """Models with the same were asked the same."""
    accuracies: tuple[Accuracy, ...]
    exact: ExactMatch | None
    """None: no cloze."""
    written: Written | None
    """None: no generation."""
    judged: tuple[Judged, ...]
    """Every choice, in the order of the items."""

    def to_json(self) -> dict[str, Any]:
        """The figures, without the single items and texts."""
        short = replace(
            self,
            judged=(),
            exact=replace(self.exact, words=[]) if self.exact else None,
            written=replace(self.written, texts={}) if self.written else None,
        )
        figures = plain(asdict(short))
        assert isinstance(figures, dict)
        del figures["judged"]
        for part, single in (("exact", "words"), ("written", "texts")):
            if figures[part] is not None:
                del figures[part][single]
        return figures


def measure_tasks(
    model: Decoder,
    tokenizer: Tokenizer,
    items: Sequence[Item],
    *,
    source: str,
    text: str,
    temperatures: Sequence[float] = (0.0, 0.8),
    seed: int = 0,
    batch_size: int = 32,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> TaskReport:
    """Asks a model all items.

    Args:
        model: all of it on one device.
        tokenizer: its own.
        items: see `build_items`.
        source: where the model comes from, for the report.
        text: where the items come from, for the report.
        temperatures: ways of drawing for the items of generation.
        seed: of the draws.
        batch_size: rows at a time.
        progress: called with the rows scored and how many there are.

    Raises:
        ConfigError: an impossible batch size or temperature.
        TokenizerError: the tokenizer cannot write an item.
        NonFiniteError: the model's loss or logits are NaN or infinite.
    """
    if batch_size < 1:
        raise ConfigError(f"--batch-size {batch_size}: expected at least 1")
    asked = [item for item in items if item.suite != GENERATION]
    texts = [(item.context, choice) for item in asked for choice in item.choices]
    judged = judge(asked, score(model, tokenizer, texts, batch_size=batch_size, progress=progress).tolist())
    cloze = [item for item in items if item.suite == CLOZE]
    generation = [item for item in items if item.suite == GENERATION]
    return TaskReport(
        model=source,
        text=text,
        items_sha256=fingerprint(items),
        accuracies=tuple(summarise(judged)),
        exact=match_exactly(model, tokenizer, cloze, batch_size=batch_size) if cloze else None,
        written=continue_texts(model, tokenizer, generation, temperatures, seed=seed, batch_size=batch_size)
        if generation
        else None,
        judged=tuple(judged),
    )
