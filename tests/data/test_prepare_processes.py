"""What can only be seen from outside: memory, and a death half-way."""

import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from parallax.data.corpus import Corpus
from parallax.data.prepare import prepare
from parallax.errors import DataError


def python(script: str, *arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", textwrap.dedent(script), *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def write_megabytes(file: Path, count: int, line: bytes) -> None:
    block = (line * ((1 << 20) // len(line) + 1))[: 1 << 20]
    with file.open("wb") as out:
        for _ in range(count):
            out.write(block)


@pytest.mark.parametrize(("count", "line"), [(64, b"A line of words, and some more.\n"), (24, b"x")])
def test_memory_does_not_grow_with_the_input(tmp_path: Path, count: int, line: bytes):
    write_megabytes(tmp_path / "a.txt", count, line)
    script = """
        import resource, sys
        from parallax.data.prepare import prepare
        def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        before = peak()
        meta = prepare(sys.argv[1], sys.argv[2])
        print(peak() - before, meta.train.tokens + meta.val.tokens)
    """
    output = python(script, tmp_path / "a.txt", tmp_path / "out").communicate(timeout=120)[0]
    grown_kib, tokens = map(int, output.split())
    assert tokens == (count << 20) + 2
    assert grown_kib < 48 << 10


def test_preparing_loads_no_torch():
    script = "import sys, parallax.data.prepare, parallax.data.corpus; print('torch' in sys.modules)"
    assert python(script).communicate(timeout=60)[0] == "False\n"


def test_a_death_half_way_leaves_nothing_that_opens_and_nothing_in_the_way(tmp_path: Path):
    write_megabytes(tmp_path / "a.txt", 4, b"A line of words.\n")
    script = """
        import sys, time
        from parallax.data.prepare import prepare
        def wait(done, total):
            if done > total // 2:
                print("half", flush=True)
                time.sleep(60)
        prepare(sys.argv[1], sys.argv[2], progress=wait, shard_tokens=100_000)
    """
    process = python(script, tmp_path / "a.txt", tmp_path / "out")
    assert process.stdout is not None
    assert process.stdout.readline() == "half\n"
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    assert not (tmp_path / "out").exists()
    left = [path for path in tmp_path.iterdir() if path.is_dir()]
    assert len(left) == 1
    assert any(left[0].rglob("train-*.bin"))
    with pytest.raises(DataError, match="not a prepared corpus"):
        Corpus.open(left[0] / "corpus")
    prepare(tmp_path / "a.txt", tmp_path / "out")
    Corpus.open(tmp_path / "out").verify()
