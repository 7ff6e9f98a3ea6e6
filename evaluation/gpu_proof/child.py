"""`python -m evaluation.gpu_proof.child MODULE:FUNCTION DEVICE QUICK`: one check, a JSON line a row on stdout."""

import json
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from importlib import import_module

import torch

from evaluation.gpu_proof.rows import Row, failed
from evaluation.gpu_proof.setting import Setting


def rows_of(function: Callable[[Setting], Iterator[Row]], setting: Setting) -> Iterator[Row]:
    """A check's rows; what it raises becomes one more that failed."""
    try:
        yield from function(setting)
    except Exception as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        text = " ".join(str(error).split())[:500]
        yield failed(
            "the check ended in an error", f"{type(error).__name__}: {text} ({where.name}, {where.lineno})"
        )
        traceback.print_exc()


def main(arguments: list[str]) -> int:
    """Runs the check; what it prints goes to stderr, and its rows alone to stdout."""
    function, device, quick = arguments
    # Compilers and ranks inherit stdout; the copy is not inherited, so that the reader sees its end with ours.
    rows = os.fdopen(os.dup(sys.stdout.fileno()), "w", buffering=1)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    module, _, name = function.partition(":")
    check = getattr(import_module(module), name)
    for row in rows_of(check, Setting(torch.device(device), quick == "quick")):
        print(json.dumps(row.to_dict()), file=rows)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
