"""`python -m evaluation.bench_train [--shape B,H,L,D …] [--csv FILE]`: PLLA, forward and backward."""

import sys
from collections.abc import Sequence

from parallax.runtime.threads import limit_spinning


def main(arguments: Sequence[str] | None = None) -> int:
    """See `evaluation.attention_bench.command.main`."""
    limit_spinning()
    # PyTorch reads the setting when it is imported.
    from evaluation.attention_bench import command
    from evaluation.attention_bench.task import TRAIN

    return command.main(TRAIN, arguments)


if __name__ == "__main__":
    sys.exit(main())
