import numpy as np

from parallax.checkpoint.model import read_model
from parallax.data.builtin import builtin_folder, is_builtin
from parallax.data.corpus import Corpus
from parallax.errors import DataError


def held_out_documents(run: str) -> list[str]:
    """The documents that a run validated on and never trained on, in the corpus's order.

    Raises:
        CheckpointError: no run there.
        DataError: its corpus is gone, or nothing was held out of it.
    """
    saved = read_model(run)
    if saved.run_config is None:
        raise DataError(f"{run} is a model without a run, so nothing says which text it was validated on")
    data = saved.run_config.data
    path = data.val_path or data.mixture[0].path
    corpus = Corpus.open(builtin_folder(path, data.tokenizer, data.val_fraction) if is_builtin(path) else path)
    tokenizer = corpus.tokenizer()
    split = corpus.measured("val")
    tokens = split.read(0, split.num_tokens)
    ends = np.flatnonzero(tokens == tokenizer.eos_id)
    texts = (tokenizer.decode(part[part != tokenizer.eos_id]) for part in np.split(tokens, ends))
    return [text for text in texts if text]
