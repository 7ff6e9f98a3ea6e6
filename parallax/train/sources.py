import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from parallax.config.data import MixedSource
from parallax.config.run import RunConfig
from parallax.data.build_tokenizer import build_tokenizer, is_learned
from parallax.data.builtin import builtin_folder, is_builtin
from parallax.data.corpus import Corpus, check_vocabulary
from parallax.data.loader import Loader, LoaderSource
from parallax.data.token_file import needs_tokenizer
from parallax.data.token_split import TokenSplit
from parallax.data.tokenizer import Tokenizer, check_same_tokenizer
from parallax.data.tokenizer_files import TOKENIZER_FILE
from parallax.errors import DataError, TokenizerError
from parallax.train.display import Display

_VERIFIED_TOKENS = 100_000_000
"""Corpora up to this size are read once and compared with their checksums at every start, in about a second."""


@dataclass(frozen=True)
class Source:
    """One of the corpora that training samples come from."""

    name: str
    """What it is called in the journal: the last part of its path."""
    corpus: Corpus
    share: Fraction
    """Of the samples."""


@dataclass(frozen=True)
class Sources:
    """What the run reads: training windows in order, and the validation splits."""

    mixed: Sequence[Source]
    """The corpora, the main one first."""
    tokenizer: Tokenizer
    loader: Loader
    validation: TokenSplit | None
    """None: the main corpus was prepared without one, and no loss is measured on it."""
    validation_fingerprint: str
    """Of the corpus that the validation split belongs to."""
    other_validation: Mapping[str, TokenSplit]
    """The validation splits of the other corpora, by name, as far as they have one."""

    @property
    def corpus(self) -> Corpus:
        """The main corpus."""
        return self.mixed[0].corpus

    @property
    def fingerprint(self) -> str:
        """Of all training tokens; of one corpus it is the corpus's own."""
        if len(self.mixed) == 1:
            return self.corpus.fingerprint
        parts = [f"{source.corpus.fingerprint} {source.share}" for source in self.mixed]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def open_sources(config: RunConfig, display: Display) -> Sources:
    """Opens (a built-in corpus: prepares, if need be) the data of a run and checks that the model can read it.

    Raises:
        DataError: missing, damaged, too short, or with token ids the model has no rows for.
        TokenizerError: two of the corpora, for training or validation, were made with different tokenizers.
    """
    mixture = config.data.mixture
    corpora = [open_corpus(path, config, display) for path, _ in mixture]
    main = corpora[0]
    check_vocabulary(main.meta, config.model.vocab_size)
    for other in corpora[1:]:
        _check_tokenizers_agree(main, other)
    loader = Loader(
        [LoaderSource(c.split("train"), c.fingerprint, m.weight) for c, m in zip(corpora, mixture, strict=True)],
        max_seq_len=config.model.max_seq_len,
        seed=config.seed,
        limit_samples=config.data.limit_samples,
    )
    measured = main
    if config.data.val_path is not None:
        measured = open_corpus(config.data.val_path, config, display)
        check_same_tokenizer(measured.tokenizer(), main.meta.tokenizer_fingerprint, f"the corpus {main.path}")
    mixed = _name(mixture, corpora)
    return Sources(
        mixed=mixed,
        tokenizer=main.tokenizer(),
        loader=loader,
        validation=_validation(measured, config),
        validation_fingerprint=measured.fingerprint,
        other_validation={s.name: s.corpus.split("val") for s in mixed[1:] if s.corpus.has_split("val")},
    )


def _name(mixture: Sequence[MixedSource], corpora: Sequence[Corpus]) -> list[Source]:
    """Sources under names that trackers take; of equal ones the second is NAME-2."""
    period = sum(source.weight for source in mixture)
    named: list[Source] = []
    taken: set[str] = set()
    for (path, weight), corpus in zip(mixture, corpora, strict=True):
        last = path.partition(":")[2] if is_builtin(path) else Path(path).resolve().name
        plain = name = re.sub(r"[^\w.-]", "_", last, flags=re.ASCII) or "corpus"
        number = 1
        while name in taken:
            number += 1
            name = f"{plain}-{number}"
        taken.add(name)
        named.append(Source(name, corpus, Fraction(weight, period)))
    return named


def _check_tokenizers_agree(main: Corpus, other: Corpus) -> None:
    ours, theirs = main.meta.tokenizer_fingerprint, other.meta.tokenizer_fingerprint
    if ours != theirs:
        raise TokenizerError(
            f"{other.path} was made with another tokenizer ({other.meta.tokenizer!r}, fingerprint {theirs[:12]}) "
            f"than {main.path} ({main.meta.tokenizer!r}, fingerprint {ours[:12]}); prepare it with --tokenizer "
            f"{main.path / TOKENIZER_FILE} (a built-in corpus: set data.tokenizer to that file)"
        )


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
