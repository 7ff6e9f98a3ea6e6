from pathlib import Path

from parallax.checkpoint.store import CheckpointStore
from parallax.config.load import dump_config
from parallax.config.run import RunConfig
from parallax.data.corpus import check_vocabulary
from parallax.errors import RunError
from parallax.model.registry import build_model, materialize
from parallax.train.display import Display
from parallax.train.sources import open_corpus


def write_untrained(config: RunConfig, output: Path, display: Display) -> Path:
    """Writes the weights that a run of this configuration starts from, as a checkpoint of step 0.

    It has no optimizer state: evaluate it, generate from it, or start a run with `train.init_from`.

    Raises:
        DataError: there is no corpus, or it has token ids that the model has no rows for.
        RunError: `output` exists; nothing is overwritten.
    """
    if output.exists():
        raise RunError(f"{output} exists; nothing was overwritten: choose another --output, or remove it first")
    corpus = open_corpus(config.data.mixture[0].path, config, display)
    check_vocabulary(corpus.meta, config.model.vocab_size)
    model = materialize(build_model(config.model), "cpu", seed=config.seed)
    return CheckpointStore(output, keep_last=1).save(
        0,
        weights=model.state_dict(keep_vars=True),
        optimizer={},
        state={},
        texts={"config.yaml": dump_config(config), "tokenizer.json": corpus.tokenizer().to_json()},
    )
