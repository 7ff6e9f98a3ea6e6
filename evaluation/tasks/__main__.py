# ruff: noqa: E402  (settings that torch reads when it is imported come first)
"""Suites from held-out text.

`python -m evaluation.tasks RUN [--corpus TEXT …] [--held-out F] [--tasks cloze,minimal_pairs,generation]
[--items N] [--output DIR]`
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from parallax.runtime.threads import limit_spinning

limit_spinning()

from rich.console import Console

from evaluation.arguments import check_at_least
from evaluation.output import make_output_folder
from evaluation.tasks.corpus import check_unseen, file_documents, held_out_documents
from evaluation.tasks.items import SUITES, Item, read_items
from evaluation.tasks.measure import measure_tasks
from evaluation.tasks.report import print_report
from evaluation.tasks.sentences import build_material
from evaluation.tasks.suites import build_items, check_suites
from evaluation.tasks.write import write_report
from parallax.cli.model import ReadyModel, open_model
from parallax.cli.output import progress_bar
from parallax.errors import ConfigError, run_and_explain
from parallax.runtime.ranks import read_ranks


def main(arguments: Sequence[str] | None = None) -> int:
    """Builds the items, asks one model, prints tables and writes files; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m evaluation.tasks", description="Cloze, minimal pairs and repetition on held-out text."
    )
    parser.add_argument("model", metavar="RUN", help="a run folder, a checkpoint in it, or a model folder")
    parser.add_argument(
        "--corpus", nargs="+", metavar="TEXT", help="text files or folders; default: what the run held out"
    )
    parser.add_argument(
        "--held-out", type=float, default=0.0, metavar="F", help="of --corpus, only what prepare holds out at F"
    )
    parser.add_argument("--items-file", metavar="FILE", help="ask the items.jsonl of an earlier --output")
    parser.add_argument("--tasks", default=",".join(SUITES), help=f"of {','.join(SUITES)}; default: all")
    parser.add_argument("--items", type=int, default=200, help="of each kind of question")
    parser.add_argument("--texts", type=int, default=40, help="that the model continues, of the generation task")
    parser.add_argument("--temperatures", default="0,0.8", help="of generation; 0: always the likeliest token")
    parser.add_argument("--seed", type=int, default=0, help="of the items and the draws")
    parser.add_argument("--batch-size", type=int, default=32, help="rows at a time")
    parser.add_argument("--dtype", default="fp32", help="fp32, bf16 or fp16")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument("--output", metavar="DIR", help="write items, figures, choices and texts here")
    given = parser.parse_args(arguments)
    return run_and_explain(lambda: _ask(given))


def _ask(given: argparse.Namespace) -> int:
    suites = given.tasks.split(",")
    check_suites(suites)
    temperatures = _numbers(given.temperatures)
    check_at_least(given, items=1, texts=2, batch_size=1)
    if given.items_file and given.corpus:
        raise ConfigError("--items-file and --corpus exclude each other; the file holds its text")
    if given.held_out and not given.corpus:
        raise ConfigError(f"--held-out {given.held_out}: takes a part of --corpus; give that too, or leave it out")
    if read_ranks().world_size > 1:
        raise ConfigError("the items are asked in one process; start without torchrun")
    if given.output:
        make_output_folder(Path(given.output))
    ready = open_model(given.model, device=given.device, dtype=given.dtype)
    items, text = _items(given, ready, suites)
    with progress_bar("scoring") as advance:
        report = measure_tasks(
            ready.model,
            ready.tokenizer,
            items,
            source=str(ready.path),
            text=text,
            temperatures=temperatures,
            seed=given.seed,
            batch_size=given.batch_size,
            progress=advance,
        )
    print_report(Console(highlight=False, markup=False, soft_wrap=True), report)
    if given.output:
        for path in write_report(report, items, Path(given.output)):
            print(f"written: {path}")
    return 0


def _items(given: argparse.Namespace, ready: ReadyModel, suites: Sequence[str]) -> tuple[list[Item], str]:
    if given.items_file:
        found = [item for item in read_items(Path(given.items_file)) if item.suite in suites]
        if not found:
            raise ConfigError(f"{given.items_file} has no items of --tasks {given.tasks}")
        return found, given.items_file
    if given.corpus:
        check_unseen(ready, given.corpus, given.held_out)
        documents, text = file_documents(given.corpus, given.held_out), ", ".join(given.corpus)
    else:
        documents, text = held_out_documents(ready)
    return build_items(build_material(documents), suites, given.items, given.texts, given.seed), text


def _numbers(text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise ConfigError(
            f"--temperatures {text}: expected numbers with commas between them, such as 0,0.8"
        ) from None


if __name__ == "__main__":
    sys.exit(main())
