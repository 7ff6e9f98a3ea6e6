import json
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from parallax.errors import DataError
from parallax.runtime.files import staged_directory

TASKS = ("heldout_text", "heldout_endings")
_CONTEXT_CHARS, _ENDING_CHARS, _CHOICES = 80, 32, 4
_SEED = 1234


def write_tasks(
    output: Path, documents: Sequence[str], *, num_documents: int, num_questions: int
) -> tuple[int, int]:
    """Writes a .jsonl and a .yaml of lm-eval for each of two tasks.

    | task | what lm-eval asks for | measures |
    |---|---|---|
    | heldout_text | the log-likelihood of whole documents | bits per byte |
    | heldout_endings | which of four passages goes on with a text; three come from other documents | accuracy |

    Args:
        output: does not exist.
        documents: texts that the model has not seen.
        num_documents: the most that are measured whole.
        num_questions: the most questions, at most one a document at first, then more of each in turn.

    Returns:
        How many documents and questions were written.

    Raises:
        DataError: `output` exists, or the documents are too few or too short for a question.
    """
    if output.exists():
        raise DataError(f"{output} exists; nothing was overwritten: choose another --output, or remove it first")
    long_enough = [text for text in documents if len(text) > _CONTEXT_CHARS + _ENDING_CHARS + 1]
    if len(long_enough) < _CHOICES:
        raise DataError(
            f"{len(long_enough)} held-out documents exceed {_CONTEXT_CHARS + _ENDING_CHARS + 1} characters and "
            f"a question needs {_CHOICES}: hold out more text (data.val_fraction)"
        )
    draw = random.Random(_SEED)
    texts = [{"text": text} for text in documents[:num_documents]]
    questions = [_question(long_enough, place % len(long_enough), draw) for place in range(num_questions)]
    final = output.resolve()
    with staged_directory(output) as staging:
        for name, rows, settings in (
            (TASKS[0], texts, _text_task()),
            (TASKS[1], questions, _endings_task()),
        ):
            _write_rows(staging / f"{name}.jsonl", rows)
            task = {
                "task": name,
                "dataset_path": "json",
                "dataset_kwargs": {"data_files": {"test": str(final / f"{name}.jsonl")}},
                "test_split": "test",
                **settings,
                "metadata": {"version": 1.0},
            }
            (staging / f"{name}.yaml").write_text(yaml.safe_dump(task, sort_keys=False), encoding="utf-8")
    return len(texts), len(questions)


def _text_task() -> dict[str, Any]:
    metrics = ("bits_per_byte", "byte_perplexity", "word_perplexity")
    return {
        "output_type": "loglikelihood_rolling",
        "doc_to_text": "",
        "doc_to_target": "text",
        "metric_list": [{"metric": metric} for metric in metrics],
    }


def _endings_task() -> dict[str, Any]:
    return {
        "output_type": "multiple_choice",
        "doc_to_text": "context",
        "doc_to_choice": "endings",
        "doc_to_target": "answer",
        "target_delimiter": "",
        "metric_list": [
            {"metric": metric, "aggregation": "mean", "higher_is_better": True} for metric in ("acc",)
        ],
    }


def _question(documents: Sequence[str], place: int, draw: random.Random) -> dict[str, Any]:
    """A text, the passage that goes on with it and three passages of other documents, in a drawn order."""
    text = documents[place]
    cut = draw.randrange(_CONTEXT_CHARS, len(text) - _ENDING_CHARS)
    while cut > 1 and text[cut - 1].isspace():  # lm-eval would count it to the endings
        cut -= 1
    others = draw.sample([other for number, other in enumerate(documents) if number != place], _CHOICES - 1)
    endings = [text[cut : cut + _ENDING_CHARS], *(_passage(other, draw) for other in others)]
    order = draw.sample(range(_CHOICES), _CHOICES)
    return {
        "context": text[max(0, cut - _CONTEXT_CHARS) : cut],
        "endings": [endings[number] for number in order],
        "answer": order.index(0),
    }


def _passage(text: str, draw: random.Random) -> str:
    start = draw.randrange(len(text) - _ENDING_CHARS)
    return text[start : start + _ENDING_CHARS]


def _write_rows(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    def lines() -> Iterator[str]:
        for row in rows:
            yield json.dumps(row, ensure_ascii=False) + "\n"

    path.write_text("".join(lines()), encoding="utf-8")
