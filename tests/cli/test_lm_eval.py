"""lm-eval's `hf` model over exported folders, on tasks of held-out text, without network and without Parallax."""

import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

import pytest
import torch
from clean_venv import make_clean_venv, run_clean
from small_world import Parallax
from test_bits_per_byte import write

from evaluation.lm_eval_tasks.__main__ import main
from evaluation.lm_eval_tasks.documents import held_out_documents
from evaluation.lm_eval_tasks.tasks import TASKS
from parallax.checkpoint.model import load_model
from parallax.data.prepare import prepare

pytest.importorskip("lm_eval", reason="lm_eval is not installed: pip install -e '.[eval]'")

PAGES = [page[:1500] for page in list(topics.values())[:40]]
"""Of Python's manual."""
SETTINGS = ["run.dir=studied/run", "data.path=studied/corpus", "model.max_seq_len=64"]


@pytest.fixture(scope="module")
def studied(world: Path) -> Iterator[Path]:
    """A run on pages of Python's manual, of which some are held out, and the tasks made of those."""
    folder = world / "studied"
    folder.mkdir()
    pages = [json.dumps({"text": page}) for page in PAGES]
    (folder / "pages.jsonl").write_text("\n".join(pages) + "\n", encoding="utf-8")
    prepare(folder / "pages.jsonl", folder / "corpus", val_fraction=0.3)
    yield folder
    shutil.rmtree(folder)


def lm_eval(python: Path, asked: dict[str, list[str]], cwd: Path) -> list[dict[str, Any]]:
    """lm-eval's results by task, for each model and its tasks.

    Asked by its functions: its command first reads the thousands of tasks that it comes with, for 20 seconds.
    """
    program = f"""
import json
from lm_eval import simple_evaluate
from lm_eval.tasks import TaskManager

manager = TaskManager(include_path="tasks", include_defaults=False)
results = [
    simple_evaluate(
        model="hf",
        model_args=f"pretrained={{model}},trust_remote_code=True,dtype=float32",
        tasks=tasks,
        device="cpu",
        batch_size=8,
        task_manager=manager,
    )["results"]
    for model, tasks in {asked!r}.items()
]
print(json.dumps(results))
"""
    found: list[dict[str, Any]] = json.loads(run_clean(python, program, cwd).splitlines()[-1])
    return found


@torch.no_grad()
def nlls(model: Any, before: Sequence[int], tokens: Sequence[int]) -> float:
    """Nats of the last tokens after those before them, of which the window's newest are read."""
    window = model.config.max_seq_len
    row = torch.tensor([*before, *tokens])[-(window + 1) :]
    chances = model(row[None, :-1])[0].log_softmax(-1)
    return -float(chances.gather(1, row[1:, None])[-len(tokens) :].double().sum())


@pytest.mark.slow
def test_its_scores_are_those_of_the_model_itself(
    parallax: Parallax, world: Path, studied: Path, tmp_path: Path
) -> None:
    trained = parallax("train", "tiny.yaml", *SETTINGS)
    assert trained.code == 0, trained.err
    answer = parallax("export", "studied/run", "--output", "studied/out", "--format", "transformers")
    assert answer.code == 0, answer.err
    tasks = tmp_path / "tasks"
    assert main(["studied/run", "--output", str(tasks), "--documents", "6", "--questions", "24"]) == 0
    write(studied / "bytes", knows_that_text_goes_on=True)
    answer = parallax("export", "studied/bytes", "--output", "studied/uniform", "--format", "transformers")
    assert answer.code == 0, answer.err
    asked = {str(studied / "out"): [*TASKS], str(studied / "uniform"): [TASKS[0]]}
    found, blind = lm_eval(make_clean_venv(tmp_path / "venv"), asked, tmp_path)
    assert blind["heldout_text"]["bits_per_byte,none"] == pytest.approx(8, abs=1e-6)

    model = load_model(studied / "run").model
    window, eos = model.config.max_seq_len, 256
    nats, size = 0.0, 0
    for text in held_out_documents("studied/run")[:6]:
        row = [eos, *text.encode()]
        size += len(row) - 1
        for start in range(1, len(row), window):
            stop = min(start + window, len(row))
            nats += nlls(model, row[max(0, stop - window - 1) : start], row[start:stop])
    bits = nats / size / torch.log(torch.tensor(2.0, dtype=torch.float64)).item()
    assert found["heldout_text"]["bits_per_byte,none"] == pytest.approx(bits, abs=1e-4)

    questions = [json.loads(line) for line in (tasks / "heldout_endings.jsonl").read_text().splitlines()]
    assert len(questions) == 24
    right = 0
    for question in questions:
        costs = [nlls(model, list(question["context"].encode()), list(e.encode())) for e in question["endings"]]
        right += costs.index(min(costs)) == question["answer"]
    assert found["heldout_endings"]["acc,none"] == pytest.approx(right / 24)


def test_tasks_are_the_same_each_time_and_their_answers_right(
    parallax: Parallax, world: Path, studied: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    if not (studied / "run").exists():
        assert parallax("train", "tiny.yaml", *SETTINGS).code == 0
    for name in ("one", "two"):
        assert main(["studied/run", "--output", str(tmp_path / name), "--questions", "30"]) == 0
    for task in ("heldout_text", "heldout_endings"):
        one, two = ((tmp_path / name / f"{task}.jsonl").read_bytes() for name in ("one", "two"))
        assert one == two
    held_out = held_out_documents("studied/run")
    trained_on = set(PAGES) - set(held_out)
    assert held_out
    assert trained_on
    for line in (tmp_path / "one" / "heldout_endings.jsonl").read_text(encoding="utf-8").splitlines():
        question = json.loads(line)
        whole = question["context"] + question["endings"][question["answer"]]
        assert any(whole in text for text in held_out)
        assert not any(whole in text for text in trained_on)
    capfd.readouterr()
    assert main(["studied/run", "--output", str(tmp_path / "one")]) == 2
    assert "exists; nothing was overwritten" in capfd.readouterr().err
    assert main(["run", "--output", str(tmp_path / "three")]) == 2
    assert "a question needs 4: hold out more text" in capfd.readouterr().err
