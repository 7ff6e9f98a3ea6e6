"""What `prepare` keeps of work that was cut off, and what it refuses to continue."""

import random
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from parallax.data import encode, partial, pieces
from parallax.data import prepare as prepare_module
from parallax.data.corpus import Corpus
from parallax.data.prepare import prepare
from parallax.errors import DataError, DiskFullError, RunError, UnfinishedError
from parallax.runtime.lock import RunLock

DRIVER = """
import os, signal, sys
from parallax.data import encode, encode_pool, partial, pieces
from parallax.data.prepare import prepare
encode.BATCH_CHARS, encode_pool.IN_PROCESS_CHARS, partial.SAVE_SECONDS = 4000, 1, 0.0
pieces.cut_pieces.__defaults__ = (1000,)
calls = 0
def die(*_):
    global calls
    calls += 1
    if calls == int(sys.argv[4]):
        os.kill(os.getpid(), signal.SIGKILL)
sys.setprofile(die) if sys.argv[5] == "anywhere" else None
prepare(sys.argv[1], sys.argv[2], tokenizer=sys.argv[3], num_workers=2, shard_tokens=7000, progress=die)
sys.setprofile(None)
print(calls)
"""


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def texts(tmp_path: Path, prose: str) -> Path:
    """A folder of text of two kinds."""
    folder = tmp_path / "texts"
    folder.mkdir()
    (folder / "a.txt").write_text(prose * 2)
    (folder / "b.jsonl").write_text("".join(f'{{"text": "line {n} of words"}}\n' for n in range(900)))
    return folder


class Stop(Exception):
    """Stands for whatever cuts the work off."""


@pytest.fixture
def cut_off(texts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work on `out`, cut off after ten batches, everything saved."""
    monkeypatch.setattr(encode, "BATCH_CHARS", 2000)
    monkeypatch.setattr(pieces.cut_pieces, "__defaults__", (500,))
    monkeypatch.setattr(partial, "SAVE_SECONDS", 0.0)
    calls = 0

    def stop(done: int, total: int) -> None:
        nonlocal calls
        calls += 1
        if calls == 10:
            raise Stop

    with pytest.raises(Stop):
        prepare(texts, tmp_path / "out", tokenizer="bpe:300", progress=stop)
    assert not (tmp_path / "out").exists()
    return tmp_path / "out.partial"


@pytest.mark.slow
@pytest.mark.parametrize("where", ["at a report", "anywhere"])
def test_however_often_it_is_killed_the_corpus_is_that_of_an_uninterrupted_run(
    texts: Path, tmp_path: Path, where: str
):
    def run(output: str, moment: int) -> "subprocess.CompletedProcess[str]":
        arguments = map(str, [texts, tmp_path / output, "bpe:300", moment, where])
        command = [sys.executable, "-c", textwrap.dedent(DRIVER), *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    num_moments = int(run("whole", 0).stdout)
    draw = random.Random(where)
    killed = 0
    for _ in range(6):
        done = run("out", draw.randrange(num_moments // 20, num_moments // 2))
        if (tmp_path / "out").exists():
            break
        assert done.returncode == -signal.SIGKILL, done.stderr
        killed += 1
    assert killed >= 2
    if not (tmp_path / "out").exists():
        assert run("out", 0).returncode == 0
    assert files_of(tmp_path / "out") == files_of(tmp_path / "whole")
    assert not (tmp_path / "out.partial").exists()


def test_a_continued_run_encodes_only_what_was_left_and_starts_the_bar_there(
    texts: Path, tmp_path: Path, cut_off: Path, monkeypatch: pytest.MonkeyPatch
):
    def learn_again(*_: Any) -> None:
        raise AssertionError

    monkeypatch.setattr(prepare_module, "learn_tokenizer", learn_again)
    seen: list[tuple[int, int]] = []
    notes: list[str] = []
    prepare(texts, tmp_path / "out", tokenizer="bpe:300", progress=lambda *at: seen.append(at), note=notes.append)
    assert seen == sorted(seen)
    assert seen[0][0] > 15_000
    assert notes == [f"continuing {cut_off}: {seen[0][0]:,} bytes of input are done; comparing them"]
    prepare_module_free = tmp_path / "whole"
    monkeypatch.undo()
    prepare(texts, prepare_module_free, tokenizer="bpe:300")
    assert files_of(tmp_path / "out") == files_of(prepare_module_free)


def test_input_that_was_changed_in_between_is_refused_and_the_work_kept(
    texts: Path, tmp_path: Path, cut_off: Path
):
    before = files_of(cut_off / "corpus")
    (texts / "a.txt").write_text("other text\n" * 500)
    with pytest.raises(UnfinishedError, match=rf"{cut_off} holds unfinished work of before .*a\.txt was changed"):
        prepare(texts, tmp_path / "out", tokenizer="bpe:300")
    assert files_of(cut_off / "corpus") == before


def test_input_that_only_looks_unchanged_is_refused_as_well(texts: Path, tmp_path: Path, cut_off: Path):
    plan = cut_off / "plan.json"
    stat = (texts / "a.txt").stat()
    (texts / "a.txt").write_text((texts / "a.txt").read_text().replace("chapter", "Chapter", 1))
    changed = (texts / "a.txt").stat()
    plan.write_text(plan.read_text().replace(str(stat.st_mtime_ns), str(changed.st_mtime_ns)))
    encoded: list[int] = []
    with pytest.raises(UnfinishedError, match="the text is no longer what it was when the work began"):
        prepare(texts, tmp_path / "out", tokenizer="bpe:300", progress=lambda done, _: encoded.append(done))
    assert len(encoded) == 1, "it was noticed only after more had been encoded"
    assert cut_off.is_dir()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"val_fraction": 0.1}, r"val_fraction=0\.05, now 0\.1"),
        ({"tokenizer": "bpe:301"}, "tokenizer='bpe:300', now 'bpe:301'"),
        ({"encoding_errors": "replace"}, "encoding_errors='strict', now 'replace'"),
        ({"shard_tokens": 999}, "shard_tokens"),
    ],
)
def test_other_settings_are_refused_and_the_work_kept(
    texts: Path, tmp_path: Path, cut_off: Path, options: dict[str, Any], said: str
):
    with pytest.raises(UnfinishedError, match=rf"other settings \({said}.*remove .*out\.partial to begin anew"):
        prepare(texts, tmp_path / "out", **{"tokenizer": "bpe:300", **options})
    prepare(texts, tmp_path / "out", tokenizer="bpe:300")


def test_more_files_than_before_are_refused(texts: Path, tmp_path: Path, cut_off: Path):
    (texts / "c.txt").write_text("more")
    with pytest.raises(UnfinishedError, match=r"other input \(.*c\.txt is new\)"):
        prepare(texts, tmp_path / "out", tokenizer="bpe:300")


def test_unfinished_work_that_lost_a_shard_is_refused(texts: Path, tmp_path: Path, cut_off: Path):
    next((cut_off / "corpus").glob("train-*.bin")).write_bytes(b"12")
    with pytest.raises(UnfinishedError, match=r"2 bytes, expected \d+ from the work.*remove .*out\.partial"):
        prepare(texts, tmp_path / "out", tokenizer="bpe:300")


def test_unfinished_work_is_not_taken_for_a_corpus(tmp_path: Path, cut_off: Path):
    with pytest.raises(DataError, match="out: not finished; run the command that makes it again"):
        Corpus.open(tmp_path / "out")


def test_a_full_disk_keeps_what_was_saved(
    texts: Path, tmp_path: Path, cut_off: Path, monkeypatch: pytest.MonkeyPatch
):
    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("parallax.data.shards.ShardWriter.append", refuse)
        with pytest.raises(DiskFullError, match="run the same command again"):
            prepare(texts, tmp_path / "out", tokenizer="bpe:300")
    prepare(texts, tmp_path / "out", tokenizer="bpe:300")
    Corpus.open(tmp_path / "out").verify()


def test_work_that_another_process_is_at_is_left_to_it(texts: Path, tmp_path: Path, cut_off: Path):
    with RunLock(cut_off), pytest.raises(RunError, match=r"is in use by process .* or choose another --output"):
        prepare(texts, tmp_path / "out", tokenizer="bpe:300")
    assert cut_off.is_dir()
