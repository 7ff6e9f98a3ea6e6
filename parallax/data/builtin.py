import difflib
import hashlib
import json
import os
from pathlib import Path

from parallax.data.build_tokenizer import build_tokenizer, is_learned
from parallax.data.corpus import Corpus
from parallax.data.documents import DocumentSource, TextSource
from parallax.data.python_manual import manual_documents, manual_fingerprint
from parallax.data.write_corpus import Progress, write_corpus
from parallax.errors import DataError

_PREFIX = "builtin:"
_MANUAL = "builtin:python-manual"


def is_builtin(spec: str) -> bool:
    """Whether a data path names a built-in corpus."""
    return spec.startswith(_PREFIX)


def builtin_source(spec: str, val_fraction: float) -> DocumentSource:
    """The documents of a built-in corpus.

    Raises:
        DataError: there is no such corpus.
    """
    _check_known(spec)
    return TextSource(manual_documents(), val_fraction=val_fraction)


def builtin_folder(
    spec: str, tokenizer: str = "byte", val_fraction: float = 0.05, progress: Progress | None = None
) -> Path:
    """The folder of a built-in corpus, prepared on first use and kept in the user's cache.

    The cache is `$PARALLAX_CACHE`, else `$XDG_CACHE_HOME/parallax`, else `~/.cache/parallax`; the folder's name
    has a fingerprint of the text, the tokenizer and the fraction. When several processes prepare the same
    corpus at a time, one puts it in place and the others use that one.

    Args:
        spec: `builtin:python-manual`.
        tokenizer: As for `prepare`.
        val_fraction: Share of the documents to hold out.
        progress: Called with (bytes read, bytes in all) when the corpus has to be prepared.

    Raises:
        DataError: there is no such corpus, or the cache cannot be written.
        TokenizerError: the tokenizer cannot be had.
    """
    _check_known(spec)
    folder = cache_folder() / _cache_name(spec, tokenizer, val_fraction)
    if folder.exists():
        return _checked(folder)
    try:
        write_corpus(
            builtin_source(spec, val_fraction),
            folder,
            tokenizer=tokenizer,
            val_fraction=val_fraction,
            inputs=(spec,),
            progress=progress,
        )
    except OSError as error:
        if not folder.exists():
            raise DataError(
                f"{folder} was not made: {error}; set PARALLAX_CACHE to a folder that you may write to"
            ) from error
    return _checked(folder)


def cache_folder() -> Path:
    """Where built-in corpora are kept, whether or not it exists yet."""
    own = os.environ.get("PARALLAX_CACHE")
    if own:
        return Path(own).expanduser()
    shared = os.environ.get("XDG_CACHE_HOME")
    return (Path(shared) if shared else Path("~/.cache").expanduser()) / "parallax"


def _check_known(spec: str) -> None:
    if spec != _MANUAL:
        near = difflib.get_close_matches(spec, [_MANUAL], 1)
        raise DataError(f"{spec}: no such built-in corpus; {'did you mean' if near else 'there is'} {_MANUAL}?")


def _checked(folder: Path) -> Path:
    try:
        Corpus.open(folder)
    except DataError as error:
        raise DataError(f"{error} (this is a cached copy: remove {folder}, and it is made again)") from None
    return folder


def _cache_name(spec: str, tokenizer: str, val_fraction: float) -> str:
    # A tokenizer file may change under the same name; what is learned follows from the text and the specification.
    tokenizer_key = tokenizer if is_learned(tokenizer) else build_tokenizer(tokenizer, list).fingerprint
    settings = json.dumps([manual_fingerprint(), tokenizer_key, val_fraction])
    return f"{spec.removeprefix(_PREFIX)}-{hashlib.sha256(settings.encode()).hexdigest()[:16]}"
