"""Sizes: files larger than the memory allowed, a line of 100 MB, thousands of files."""

import json
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from parallax.data.prepare import prepare

PREPARE = """
import resource, sys
from parallax.data.prepare import prepare
def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
before = peak()
meta = prepare(sys.argv[1], sys.argv[2], tokenizer=sys.argv[3], num_workers=int(sys.argv[4]))
print((peak() - before) // 1024, meta.train.tokens + meta.val.tokens, meta.train.text_bytes + meta.val.text_bytes)
"""


def prepare_alone(file: Path, output: Path, tokenizer: str = "byte", num_workers: int = 1) -> tuple[int, int, int]:
    """MiB that the process grew by, tokens, and bytes of text."""
    command = [sys.executable, "-c", textwrap.dedent(PREPARE), str(file), str(output), tokenizer, str(num_workers)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280, check=True)
    grown, tokens, text_bytes = map(int, done.stdout.split())
    return grown, tokens, text_bytes


@pytest.mark.slow
def test_a_file_several_times_the_memory_it_may_take_is_prepared(tmp_path: Path):
    block = ("A line of words, and some more.\n" * 40_000).encode()
    with (tmp_path / "a.txt").open("wb") as file:
        for _ in range(300):
            file.write(block)
    size = 300 * len(block)
    grown, tokens, text_bytes = prepare_alone(tmp_path / "a.txt", tmp_path / "out")
    assert (tokens, text_bytes) == (size + 2, size)
    assert grown < 64 < size >> 21


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".txt", ".jsonl"])
def test_a_single_line_of_100_mb_is_prepared(tmp_path: Path, suffix: str):
    text = "seven words are in this one line " * 3_100_000
    file = tmp_path / f"a{suffix}"
    file.write_text(text if suffix == ".txt" else json.dumps({"text": text}) + '\n{"text": "x"}\n' * 40)
    grown, _, text_bytes = prepare_alone(file, tmp_path / "out")
    assert text_bytes == len(text) + (0 if suffix == ".txt" else 40)
    # A line is held whole: as bytes, as text, and as what JSON makes of it.
    assert grown < (64 if suffix == ".txt" else 500)


@pytest.mark.slow
def test_processes_hold_a_bounded_part_of_the_input(tmp_path: Path):
    line = "".join(f"Word {n} is followed by word {n * n}. " for n in range(1000)) + "\n"
    (tmp_path / "a.txt").write_text(line * 600)
    grown, _, text_bytes = prepare_alone(tmp_path / "a.txt", tmp_path / "out", "char", 2)
    assert text_bytes == 600 * len(line)
    assert grown < 150


def test_5000_small_files_take_seconds(tmp_path: Path):
    folder = tmp_path / "in"
    folder.mkdir()
    for number in range(5000):
        (folder / f"{number:04d}.txt").write_text(f"File {number} has a line.\n")
    start = time.perf_counter()
    meta = prepare(folder, tmp_path / "out")
    assert meta.train.documents + meta.val.documents == 5000
    assert time.perf_counter() - start < 20
