"""The tree of errors that a person is meant to read.

Every class here carries one sentence-like message that names the offending value, what was expected and
the way out. The command line prints it as one line and leaves with `exit_code`; no traceback is shown.
"""

import re
import sys
from collections.abc import Callable

_OUT_OF_MEMORY = re.compile(
    r"MemoryError|can't allocate memory|out of memory|can't start new thread", re.IGNORECASE
)
"""A thread that cannot start found no memory for its stack, or too many others."""


class ParallaxError(Exception):
    """A mistake or a condition of the surroundings that the user can mend."""

    exit_code = 2


class ConfigError(ParallaxError):
    """The configuration is unreadable, has an unknown key, or contradicts itself."""


class DataError(ParallaxError):
    """Text or token shards are missing, empty, damaged, or do not fit the model."""


class UnfinishedError(DataError):
    """Work on data stopped for a reason that lies outside the text; what is done is kept and can be continued."""


class TokenizerError(ParallaxError):
    """A tokenizer cannot be found, or differs from the one that made the data or the checkpoint."""


class CheckpointError(ParallaxError):
    """A checkpoint is missing, damaged, or belongs to another architecture or run."""


class RunError(ParallaxError):
    """The run folder is in use, or holds a run that this configuration does not continue."""


class FencedError(RunError):
    """A newer start of the job has claimed the run; this process is left over, and may write nothing more."""


class BackendError(ParallaxError):
    """A device, precision or backend was asked for by name and is not there."""


class JoinError(ParallaxError):
    """The ranks of a run cannot reach each other, or were started in ways that contradict each other."""


class DiskFullError(ParallaxError):
    """The disk or quota ran out while something was being saved; what was saved before is untouched."""


class HubError(ParallaxError):
    """The Hugging Face hub cannot be reached, or refuses what was asked of it."""


class OutOfMemoryError(ParallaxError):
    """A step did not fit into the device's memory; what was saved before is untouched."""


class NonFiniteError(ParallaxError):
    """A NaN or infinity: in training, where the last good checkpoint is kept, or in a model's logits."""


class ElsewhereError(ParallaxError):
    """Another rank of the run has met an error and told the user about it; this one leaves with it."""

    def __init__(self, exit_code: int) -> None:
        super().__init__("another rank has reported what went wrong")
        self.exit_code = exit_code


class GoalError(ParallaxError):
    """The run ended without reaching the `train.goal` it was given."""

    exit_code = 1


def is_out_of_memory(error: BaseException) -> bool:
    """Whether Python, CUDA or torch's CPU allocator, whose error is a plain RuntimeError, found no memory."""
    return isinstance(error, MemoryError | RuntimeError) and bool(_OUT_OF_MEMORY.search(repr(error)))


def run_and_explain(action: Callable[[], int]) -> int:
    """Runs a command; a `ParallaxError` becomes one line on stderr and its exit code."""
    try:
        return action()
    except ElsewhereError as error:
        return error.exit_code
    except ParallaxError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return error.exit_code
    except (MemoryError, RuntimeError) as error:
        # torch's own class would mean importing torch.
        if not is_out_of_memory(error):
            raise
        print(
            "error: out of memory; try a smaller train.micro_batch (accumulation follows), "
            "train.activation_checkpointing=true or a smaller loss.chunk_tokens",
            file=sys.stderr,
        )
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
