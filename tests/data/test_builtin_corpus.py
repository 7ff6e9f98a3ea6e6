import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from parallax.data import builtin, python_manual
from parallax.data.builtin import builtin_folder, cache_folder, is_builtin
from parallax.data.corpus import Corpus
from parallax.data.prepare import prepare
from parallax.data.python_manual import manual_documents
from parallax.errors import DataError, TokenizerError

SPEC = "builtin:python-manual"
MODULE = '''
"""What the module is about."""
import sys

def plain(a, *, b=1):
    """Adds
       indented.

       Text.
    """

class Shape(Base):
    """A shape."""
    def area(self):
        """Its area."""
    def undocumented(self): ...
    class Inner:
        """Inside."""

async def later(): ...
'''


@pytest.fixture
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A small library in place of the real one, and an empty cache."""
    root = tmp_path / "lib"
    files = {
        "shapes/__init__.py": MODULE,
        "pydoc_data/topics.py": "topics = {'if': 'The if statement\\n\\nchooses.\\n', 'for': 'The for statement'}",
        "test/test_shapes.py": '"""Never read."""',
        "site-packages/other.py": '"""Never read."""',
        "lib2to3/broken.py": "print 1",
        "samples.py": "print 'of another Python'",
    }
    files |= {f"many{n}.py": f'"""Documentation of module number {n}."""' for n in range(30)}
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    monkeypatch.setattr(python_manual, "_library_root", lambda: root)
    monkeypatch.setattr(python_manual, "_MIN_CHARS", 10)
    monkeypatch.setattr(python_manual, "_MIN_CORPUS_CHARS", 100)
    monkeypatch.setenv("PARALLAX_CACHE", str(tmp_path / "cache"))
    return root


def test_documents_are_topics_modules_functions_and_classes_with_their_methods(library: Path):
    documents = manual_documents()
    assert {text for text in documents if "Documentation of module" not in text} == {
        "The if statement\n\nchooses.",
        "The for statement",
        "shapes\n\nWhat the module is about.",
        "shapes.plain(a, *, b=1)\n\nAdds\nindented.\n\nText.",
        "shapes.Shape(Base)\n\nA shape.\n\nshapes.Shape.area(self)\n\nIts area.\n\n"
        "shapes.Shape.Inner()\n\nInside.",
    }
    assert "many3\n\nDocumentation of module number 3." in documents
    assert documents == manual_documents()
    numbers = [text for text in documents if text.startswith("many")]
    assert numbers != sorted(numbers)


def test_a_library_without_sources_is_said(library: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(python_manual, "_MIN_CORPUS_CHARS", 10_000)
    with pytest.raises(
        DataError, match=r"lib: this Python's library comes without its sources.*parallax data prepare"
    ):
        manual_documents()


@pytest.mark.slow
def test_the_real_manual_is_some_megabytes_that_any_run_reads_alike():
    script = "import hashlib; from parallax.data.python_manual import manual_documents as m; d = m()"
    report = (
        'print(len(d), sum(map(len, d)), min(map(len, d)), hashlib.sha256("\\0".join(d).encode()).hexdigest())'
    )
    command = [sys.executable, "-W", "error", "-c", f"{script}; {report}"]
    first, second = (subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2))
    outputs = [process.communicate(timeout=120)[0].split() for process in (first, second)]
    assert outputs[0] == outputs[1]
    documents, characters, shortest = map(int, outputs[0][:3])
    assert documents > 1500
    assert characters > 1_500_000
    assert shortest >= 120


def test_it_is_prepared_once_and_opens_as_a_corpus(library: Path, monkeypatch: pytest.MonkeyPatch):
    folder = builtin_folder(SPEC, "byte", 0.3)
    corpus = Corpus.open(folder)
    corpus.verify()
    assert corpus.meta.train.documents + corpus.meta.val.documents == len(manual_documents())
    assert corpus.meta.val_rule == "documents"
    assert corpus.meta.inputs == (SPEC,)
    monkeypatch.setattr(builtin, "write_corpus", None)
    assert builtin_folder(SPEC, "byte", 0.3) == folder


def test_another_text_tokenizer_or_fraction_is_another_folder(library: Path, tmp_path: Path):
    (tmp_path / "tokenizer.json").write_text('{"type": "byte"}')
    folders = [builtin_folder(SPEC, *settings) for settings in [("byte", 0.3), ("byte", 0.4), ("bpe:260", 0.3)]]
    (library / "many1.py").write_text('"""Documentation that has changed."""')
    folders.append(builtin_folder(SPEC, "byte", 0.3))
    assert len(set(folders)) == 4
    assert builtin_folder(SPEC, str(tmp_path / "tokenizer.json"), 0.3) == folders[-1]
    for folder in folders:
        Corpus.open(folder).verify()


def test_the_one_that_comes_second_uses_what_the_first_put_in_place(
    library: Path, monkeypatch: pytest.MonkeyPatch
):
    write = builtin.write_corpus

    def overtaken(*args: object, **options: object) -> None:
        write(*args, **options)
        (args[1] / "first").touch()
        write(*args, **options)

    monkeypatch.setattr(builtin, "write_corpus", overtaken)
    folder = builtin_folder(SPEC, "byte", 0.3)
    assert (folder / "first").exists()
    assert [path.name for path in cache_folder().iterdir()] == [folder.name]


def test_two_processes_that_prepare_it_at_a_time_end_with_one_sound_corpus(library: Path):
    script = textwrap.dedent(f"""
        from pathlib import Path
        from parallax.data import python_manual
        from parallax.data.builtin import builtin_folder
        from parallax.data.corpus import Corpus
        python_manual._library_root = lambda: Path({str(library)!r})
        python_manual._MIN_CHARS, python_manual._MIN_CORPUS_CHARS = 10, 100
        folder = builtin_folder({SPEC!r}, "byte", 0.3)
        Corpus.open(folder).verify()
        print(folder)
    """)
    processes = [
        subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) for _ in range(3)
    ]
    outputs = {process.communicate(timeout=120)[0] for process in processes}
    assert [process.returncode for process in processes] == [0, 0, 0]
    assert len(outputs) == 1
    assert [str(path) for path in cache_folder().iterdir()] == [outputs.pop().strip()]


def test_a_damaged_cached_copy_names_what_to_remove(library: Path):
    folder = builtin_folder(SPEC, "byte", 0.3)
    (folder / "train-00000.bin").unlink()
    with pytest.raises(DataError, match=rf"damaged shard, .*remove {folder}, and it is made again"):
        builtin_folder(SPEC, "byte", 0.3)


def test_where_the_cache_is(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOME", "/home/someone")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("PARALLAX_CACHE", raising=False)
    assert cache_folder() == Path("/home/someone/.cache/parallax")
    monkeypatch.setenv("XDG_CACHE_HOME", "/big/cache")
    assert cache_folder() == Path("/big/cache/parallax")
    monkeypatch.setenv("PARALLAX_CACHE", "~/corpora")
    assert cache_folder() == Path("/home/someone/corpora")


def test_a_cache_that_cannot_be_written_names_the_variable_that_moves_it(
    library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "file").touch()
    monkeypatch.setenv("PARALLAX_CACHE", str(tmp_path / "file"))
    with pytest.raises(DataError, match=r"was not made: .*; set PARALLAX_CACHE to a folder"):
        builtin_folder(SPEC)


def test_what_is_not_there_is_refused(library: Path):
    assert is_builtin("builtin:anything")
    assert not is_builtin("data/python-manual")
    with pytest.raises(
        DataError, match=r"builtin:pyton-manual: no such built-in corpus; did you mean builtin:python"
    ):
        builtin_folder("builtin:pyton-manual")
    with pytest.raises(TokenizerError, match="no such file"):
        builtin_folder(SPEC, "gone.json")


def test_it_can_be_prepared_into_a_folder_of_ones_own(library: Path, tmp_path: Path):
    prepare(SPEC, tmp_path / "own", val_fraction=0.3)
    cached = Corpus.open(builtin_folder(SPEC, "byte", 0.3))
    assert Corpus.open(tmp_path / "own").fingerprint == cached.fingerprint
