import ast
import hashlib
import inspect
import os
import sysconfig
import warnings
from collections.abc import Iterator
from pathlib import Path

from parallax.errors import DataError

_LAYOUT_VERSION = 1
_MIN_CHARS = 120
_MIN_CORPUS_CHARS = 200_000
_SKIPPED = {
    *("__pycache__", "dist-packages", "ensurepip", "idlelib", "lib-dynload"),
    *("lib2to3", "site-packages", "test", "tests", "turtledemo"),
}
_TOPICS_FILE = Path("pydoc_data", "topics.py")

_Definition = ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def manual_documents() -> list[str]:
    """The manual that comes with this Python: language topics and the docstrings of the standard library.

    Documents are the topics of `pydoc_data`, the docstring of each module, and each top-level function or class
    together with its methods, every docstring under its dotted name and signature. Those under 120
    characters are left out, and repeated ones. They are in the order of their SHA-256, so that any part of
    the list is a fair sample. About 2 MB; the text varies with the Python version.

    Raises:
        DataError: this Python was installed without the sources of its library.
    """
    documents = set(_topics())
    for file in _library_files():
        documents.update(_module_documents(file))
    kept = [text for text in documents if len(text) >= _MIN_CHARS]
    if sum(map(len, kept)) < _MIN_CORPUS_CHARS:
        raise DataError(
            f"{_library_root()}: this Python's library comes without its sources, so there is no built-in "
            f"corpus; install the full library, or give other text: parallax data prepare --input … --output …"
        )
    return sorted(kept, key=lambda text: hashlib.sha256(text.encode()).digest())


def manual_fingerprint() -> str:
    """SHA-256 of all that `manual_documents` depends on, without the seconds that parsing it takes."""
    digest = hashlib.sha256(f"layout {_LAYOUT_VERSION}".encode())
    for file in _library_files():
        content = file.read_bytes()
        digest.update(f"{file.relative_to(_library_root()).as_posix()} {len(content)}\n".encode())
        digest.update(content)
    return digest.hexdigest()


def _library_root() -> Path:
    return Path(sysconfig.get_path("stdlib"))


def _library_files() -> list[Path]:
    found: list[Path] = []
    for parent, folders, names in os.walk(_library_root()):
        folders[:] = [name for name in folders if name not in _SKIPPED]
        found += [Path(parent, name) for name in names if name.endswith(".py")]
    return sorted(found)


def _topics() -> Iterator[str]:
    """The topics are read from the source rather than imported: the same file that the fingerprint covers."""
    file = _library_root() / _TOPICS_FILE
    tree = _parse(file) if file.is_file() else None
    for node in tree.body if tree is not None else ():
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Dict):
            for item in node.value.values:
                if isinstance(item, ast.Constant) and isinstance(item.value, str):
                    yield inspect.cleandoc(item.value)


def _module_documents(file: Path) -> Iterator[str]:
    tree = _parse(file)
    if tree is None:
        return
    parts = file.relative_to(_library_root()).with_suffix("").parts
    name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
    yield _entry(name, ast.get_docstring(tree))
    for node in tree.body:
        if isinstance(node, _Definition):
            yield "\n\n".join(_definition_entries(node, name))


def _definition_entries(node: _Definition, prefix: str) -> Iterator[str]:
    """The entry of a function or class, then those of what a class holds; nothing for what has no docstring."""
    name = f"{prefix}.{node.name}"
    inside = ", ".join(map(ast.unparse, node.bases)) if isinstance(node, ast.ClassDef) else ast.unparse(node.args)
    entry = _entry(f"{name}({inside})", ast.get_docstring(node))
    if entry:
        yield entry
    if isinstance(node, ast.ClassDef):
        for child in node.body:
            if isinstance(child, _Definition):
                yield from _definition_entries(child, name)


def _entry(heading: str, docstring: str | None) -> str:
    # A few docstrings test how lone surrogates print; a text of them cannot be encoded.
    clean = (docstring or "").strip().encode("utf-8", errors="replace").decode("utf-8")
    return f"{heading}\n\n{clean}" if clean else ""


def _parse(file: Path) -> ast.Module | None:
    """The syntax tree, or None for the files kept as samples of other or of broken Python."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # invalid escapes in old docstrings are not our reader's concern
        try:
            return ast.parse(file.read_bytes())
        except (SyntaxError, ValueError):
            return None
