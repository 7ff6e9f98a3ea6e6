from collections.abc import Sequence
from pathlib import Path

import numpy as np

from parallax.cli.evaluate import open_splits
from parallax.cli.model import ReadyModel
from parallax.data.builtin import is_builtin
from parallax.data.corpus import Corpus
from parallax.data.documents import FileSource
from parallax.data.input_files import find_text_files
from parallax.data.text_reader import ReadTally
from parallax.errors import ConfigError, ParallaxError

_MOST_TOKENS = 1 << 22


def held_out_documents(ready: ReadyModel) -> tuple[list[str], str]:
    """The text that a run validated on, decoded, and its name.

    Raises:
        ConfigError: the model came without a run.
        DataError: the run's data are gone, or nothing was held out.
    """
    if ready.run_config is None:
        raise ConfigError(
            f"{ready.path} came without a run, so no text is known that it has not seen; give --corpus"
        )
    split, _, _ = open_splits(ready, None, "val")
    ids = split.read(0, min(split.num_tokens, _MOST_TOKENS))
    ends = np.flatnonzero(ids == ready.tokenizer.eos_id)
    return [ready.tokenizer.decode(part) for part in np.split(ids, ends) if part.size > 1], split.source


def file_documents(inputs: Sequence[str], held_out: float) -> list[str]:
    """Texts of files; with a share, only what `parallax data prepare --val-fraction` holds out of them.

    Raises:
        ConfigError: a share outside [0, 1).
        DataError: unusable input, or nothing held out.
    """
    if not 0 <= held_out < 1:
        raise ConfigError(f"--held-out {held_out}: expected a share from 0 (all of the text) to below 1")
    source = FileSource(
        find_text_files(inputs), val_fraction=held_out, text_field="text", encoding_errors="strict"
    )
    wanted = "val" if held_out else "train"
    return ["".join(one.pieces) for one in source.documents(ReadTally()) if one.split == wanted]


def check_unseen(ready: ReadyModel, inputs: Sequence[str], held_out: float) -> None:
    """Checks that a run was not trained on the whole of these files, as far as its corpora still tell.

    Raises:
        ConfigError: it was.
    """
    if held_out or ready.run_config is None:
        return
    given = {file.resolve(): file for file in find_text_files(inputs)}
    for trained_on in ready.run_config.data.mixture:
        for name in _inputs_of(trained_on.path):
            if (seen := given.get(Path(name).resolve())) is not None:
                raise ConfigError(
                    f"{ready.path} was trained on {seen}; leave --corpus out to take what the run held out, or "
                    "give --held-out with the fraction that was"
                )


def _inputs_of(corpus: str) -> Sequence[str]:
    if is_builtin(corpus):
        return ()
    try:
        return Corpus.open(corpus).meta.inputs
    except ParallaxError:
        # The corpus may have gone; the model still works.
        return ()
