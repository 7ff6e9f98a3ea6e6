from dataclasses import dataclass

from parallax.config.run import RunConfig
from parallax.data.build_tokenizer import build_tokenizer, is_learned
from parallax.data.builtin import builtin_folder, is_builtin
from parallax.data.corpus import Corpus, check_vocabulary
from parallax.data.loader import Loader
from parallax.data.token_file import needs_tokenizer
from parallax.data.token_split import TokenSplit
from parallax.data.tokenizer import Tokenizer, check_same_tokenizer
from parallax.errors import DataError, TokenizerError
from parallax.train.display import Display

_VERIFIED_TOKENS = 100_000_000
"""Corpora up to this size are read once and compared with their checksums at every start, in about a second."""


@dataclass(frozen=True)
class Sources:
    """What the run reads: training windows in order, and the validation split."""

    corpus: Corpus
    tokenizer: Tokenizer
    loader: Loader
    validation: TokenSplit | None
    """None: the corpus was prepared without one, and no loss is measured on it."""
    validation_fingerprint: str
    """Of the corpus that the validation split belongs to."""


def open_sources(config: RunConfig, display: Display) -> Sources:
    """Opens (a built-in corpus: prepares, if need be) the data of a run and checks that the model can read it.

    Raises:
        DataError: missing, damaged, too short, or with token ids the model has no rows for.
        TokenizerError: training and validation data were made with different tokenizers.
    """
    corpus = open_corpus(config.data.path, config, display)
    check_vocabulary(corpus.meta, config.model.vocab_size)
    loader = Loader(
        corpus.split("train"),
        max_seq_len=config.model.max_seq_len,
        seed=config.seed,
        corpus_fingerprint=corpus.fingerprint,
        limit_samples=config.data.limit_samples,
    )
    measured = corpus
    if config.data.val_path is not None:
        measured = open_corpus(config.data.val_path, config, display)
        check_same_tokenizer(measured.tokenizer(), corpus.meta.tokenizer_fingerprint, f"the corpus {corpus.path}")
    return Sources(corpus, corpus.tokenizer(), loader, _validation(measured, config), measured.fingerprint)


def _validation(measured: Corpus, config: RunConfig) -> TokenSplit | None:
    if measured.has_split("val"):
        return measured.split("val")
    if config.data.val_path is None:
        return None
    if measured.is_token_file:
        return measured.measured()
    raise DataError(
        f"data.val_path={config.data.val_path} has no validation split; prepare it with --val-fraction above 0 "
        f"(close to 1 for text that is there for validation only)"
    )


def open_corpus(path: str, config: RunConfig, display: Display) -> Corpus:
    """Opens a prepared corpus or a .bin file, or a built-in corpus, which is prepared on first use.

    Raises:
        DataError: there is no corpus, or it is damaged.
    """
    if not is_builtin(path):
        corpus = Corpus.open(path, _given_tokenizer(path, config))
        if sum(split.tokens for split in (corpus.meta.train, corpus.meta.val)) <= _VERIFIED_TOKENS:
            corpus.verify()
        return corpus
    announced = False

    def announce(done: int, total: int) -> None:
        nonlocal announced
        if not announced:
            display.message(f"prepare  {path}, {total / 1e6:.1f} MB from this Python's own library; once")
            announced = True

    return Corpus.open(builtin_folder(path, config.data.tokenizer, config.data.val_fraction, announce))


def _given_tokenizer(path: str, config: RunConfig) -> Tokenizer | None:
    """That of a .bin file without notes. The default of `data.tokenizer` is no statement about such a file."""
    spec = config.data.tokenizer
    if not needs_tokenizer(path) or "tokenizer" not in config.data.model_fields_set:
        return None
    if is_learned(spec):
        raise TokenizerError(f"data.tokenizer={spec} would be learned; name the one that made {path}")
    return build_tokenizer(spec, list)
