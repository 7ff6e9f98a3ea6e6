"""Two tasks for lm-eval from the text that a run validated on, to be read without a network.

`python -m evaluation.lm_eval_tasks RUN --output DIR`, then with the exported model:

    lm_eval run --model hf --model_args pretrained=FOLDER,trust_remote_code=True --include_path DIR
        --tasks heldout_text,heldout_endings
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from evaluation.lm_eval_tasks.documents import held_out_documents
from evaluation.lm_eval_tasks.tasks import TASKS, write_tasks
from parallax.errors import run_and_explain


def main(arguments: Sequence[str] | None = None) -> int:
    """Writes the tasks; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m evaluation.lm_eval_tasks")
    parser.add_argument("run", help="a run folder, or a checkpoint in it")
    parser.add_argument("--output", type=Path, required=True, help="folder to make; must not exist")
    parser.add_argument("--documents", type=int, default=20, help="the most documents of heldout_text")
    parser.add_argument("--questions", type=int, default=200, help="the most questions of heldout_endings")
    given = parser.parse_args(arguments)
    return run_and_explain(lambda: _report(given))


def _report(given: argparse.Namespace) -> int:
    documents = held_out_documents(given.run)
    counts = write_tasks(given.output, documents, num_documents=given.documents, num_questions=given.questions)
    print(f"{len(documents)} held-out documents: {counts[0]} in heldout_text, {counts[1]} questions")
    print("next: lm_eval run --model hf --model_args pretrained=FOLDER,trust_remote_code=True \\")
    print(f"        --include_path {given.output} --tasks {','.join(TASKS)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
