"""Encoding in processes: the same tokens, one clear error, and nobody left behind."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import psutil
import pytest

from parallax.data import encode, encode_pool, pieces
from parallax.data.build_tokenizer import train_bpe
from parallax.data.documents import TextSource
from parallax.data.encode import cut_batches
from parallax.data.encode_pool import EncodePool, encode_batches
from parallax.data.meta import storage_dtype
from parallax.data.prepare import prepare
from parallax.data.text_reader import ReadTally
from parallax.errors import DataError, UnfinishedError

PREPARE = """
import sys
from parallax.data import encode, encode_pool, pieces
from parallax.data.prepare import prepare
encode.BATCH_CHARS, encode_pool.IN_PROCESS_CHARS = 20_000, 1
pieces.cut_pieces.__defaults__ = (5000,)
prepare(sys.argv[1], sys.argv[2], tokenizer="bpe:300", num_workers=2,
        progress=lambda *at: print(*at, flush=True))
"""


@pytest.fixture
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many batches, and processes from the second one on."""
    monkeypatch.setattr(encode, "BATCH_CHARS", 1000)
    monkeypatch.setattr(pieces.cut_pieces, "__defaults__", (500,))
    monkeypatch.setattr(encode_pool, "IN_PROCESS_CHARS", 1)


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.usefixtures("small_batches")
@pytest.mark.parametrize("tokenizer", ["byte", "char", "bpe:400"])
def test_the_corpus_does_not_depend_on_the_number_of_processes(tmp_path: Path, prose: str, tokenizer: str):
    (tmp_path / "a.txt").write_text(prose)
    (tmp_path / "b.txt").write_text("é and 語 " * 500)
    texts = [tmp_path / "a.txt", tmp_path / "b.txt"]
    for workers in (1, 3):
        prepare(texts, tmp_path / f"out{workers}", tokenizer=tokenizer, num_workers=workers, shard_tokens=3000)
    assert files_of(tmp_path / "out1") == files_of(tmp_path / "out3")


def test_a_small_input_starts_no_process(tmp_path: Path, prose: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(encode_pool.EncodePool, "__enter__", None)
    (tmp_path / "a.txt").write_text(prose)
    meta = prepare(tmp_path / "a.txt", tmp_path / "out", tokenizer="char", num_workers=4)
    assert meta.train.text_bytes + meta.val.text_bytes == len(prose)


@pytest.mark.usefixtures("small_batches")
def test_a_process_that_is_killed_is_one_error_and_no_wait(prose: str):
    tokenizer = train_bpe([prose], 300)
    tally = ReadTally()
    batches = cut_batches(TextSource([prose], val_fraction=0).documents(tally), tally)
    with EncodePool(tokenizer, storage_dtype("uint16"), 2) as pool:
        encoded = pool.encode(batches)
        next(encoded)
        victim, other = pool._processes
        victim.kill()
        with pytest.raises(UnfinishedError, match=rf"process {victim.pid}, which encoded text, ended \(SIGKILL\)"):
            list(encoded)
    assert other.poll() is not None


@pytest.mark.usefixtures("small_batches")
def test_an_error_in_a_process_is_raised_here_as_it_is(prose: str):
    tokenizer = train_bpe([prose], 300)
    tally = ReadTally()
    source = TextSource([prose], val_fraction=0)
    batches = list(cut_batches(source.documents(tally), tally))
    batches[5].pieces[0] = ("train", "lone \ud800 surrogate")
    with pytest.raises(Exception, match="lone surrogate"):
        list(encode_batches(iter(batches), tokenizer, storage_dtype("uint16"), 2))


def test_fewer_than_one_process_is_refused(tmp_path: Path):
    (tmp_path / "a.txt").write_text("text\nmore\n")
    with pytest.raises(DataError, match=r"num_workers=0 must be at least 1"):
        prepare(tmp_path / "a.txt", tmp_path / "out", num_workers=0)


def test_a_process_in_wait_ends_with_its_input(prose: str):
    with EncodePool(train_bpe([prose], 300), storage_dtype("uint16"), 1) as pool:
        [process] = pool._processes
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(timeout=20) == 0


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL, signal.SIGTERM])
def test_no_process_outlives_its_parent(tmp_path: Path, prose: str, how: signal.Signals):
    (tmp_path / "a.txt").write_text(prose * 200)
    command = [sys.executable, "-c", textwrap.dedent(PREPARE), str(tmp_path / "a.txt"), str(tmp_path / "out")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as parent:
        assert parent.stdout is not None
        children: list[psutil.Process] = []
        while len(children) < 2:
            assert parent.stdout.readline()
            children = psutil.Process(parent.pid).children()
        os.kill(parent.pid, how)
        parent.communicate(timeout=30)
    deadline = time.monotonic() + 20
    while any(child.is_running() and child.status() != psutil.STATUS_ZOMBIE for child in children):
        assert time.monotonic() < deadline, "an encoding process is left"
        time.sleep(0.05)
