"""Preparing a corpus: seconds of learning the tokenizer and of encoding, their rates, and peak memory.

`python -m evaluation.bench.preparing FILE [--tokenizer bpe:32000] [--num-workers N]`
"""

import argparse
import os
import resource
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from parallax.data.encode_pool import available_cores
from parallax.data.meta import CorpusMeta
from parallax.data.prepare import prepare
from parallax.errors import run_and_explain


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures and prints the table; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m evaluation.bench.preparing")
    parser.add_argument("file", type=Path)
    parser.add_argument("--tokenizer", default="bpe:32000")
    parser.add_argument("--num-workers", type=int, default=None)
    given = parser.parse_args(arguments)
    return run_and_explain(lambda: _bench(given.file, given.tokenizer, given.num_workers))


def _bench(file: Path, tokenizer: str, num_workers: int | None) -> int:
    first_encoded: list[float] = []
    start = time.perf_counter()

    def encoding(done: int, total: int) -> None:
        if not first_encoded:
            first_encoded.append(time.perf_counter())

    learned: list[float] = []

    def learning(done: int, total: int) -> None:
        if (done, total) == (0, 0):
            learned.append(time.perf_counter())

    with tempfile.TemporaryDirectory() as folder:
        meta = prepare(
            file,
            Path(folder) / "corpus",
            tokenizer=tokenizer,
            num_workers=num_workers,
            progress=encoding,
            learning=learning,
        )
    total = time.perf_counter() - start
    # The first batch, about 1 MB, counts as learning: it is reported once it is encoded.
    learning_seconds = first_encoded[0] - start if learned else 0.0
    _print(file, meta, learning_seconds, total, num_workers or available_cores())
    return 0


def _print(file: Path, meta: CorpusMeta, learning_seconds: float, total_seconds: float, num_workers: int) -> None:
    megabytes = file.stat().st_size / 1e6
    encoding_seconds = total_seconds - learning_seconds
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column()
    table.add_column(justify="right")
    kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    rows = {
        "text": f"{megabytes:,.1f} MB",
        "tokens": f"{meta.train.tokens + meta.val.tokens:,} of {meta.vocab_size:,} ids",
        "learning": f"{learning_seconds:.1f} s" if learning_seconds else "nothing to learn",
        "encoding": f"{encoding_seconds:.1f} s, {megabytes / encoding_seconds:.1f} MB/s",
        "total": f"{total_seconds:.1f} s, {megabytes / total_seconds:.1f} MB/s",
        "peak memory": f"{kib / 1024:,.0f} MiB, encoding processes not counted",
        "machine": f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, {num_workers} encoding processes",
    }
    for name, value in rows.items():
        table.add_row(name, value)
    Console(highlight=False, markup=False).print(table)


if __name__ == "__main__":
    sys.exit(main())
