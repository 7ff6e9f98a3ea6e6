import errno
from pathlib import Path

from parallax.data.builtin import builtin_source, is_builtin
from parallax.data.documents import DocumentSource, FileSource
from parallax.data.input_files import Inputs, find_text_files, list_inputs
from parallax.data.meta import CorpusMeta
from parallax.data.text_reader import EncodingErrors
from parallax.data.write_corpus import SHARD_TOKENS, Progress, write_corpus
from parallax.errors import DataError


def prepare(
    inputs: Inputs,
    output: str | Path,
    *,
    tokenizer: str = "byte",
    val_fraction: float = 0.05,
    text_field: str = "text",
    encoding_errors: EncodingErrors = "strict",
    shard_tokens: int = SHARD_TOKENS,
    progress: Progress | None = None,
) -> CorpusMeta:
    """Turns text into a corpus: token shards, `tokenizer.json` and `meta.json` in a new folder.

    A .txt file is one document, a line of a .jsonl file is one; an EOS follows each. Files are read in the order
    of their paths, in pieces, so memory does not grow with them (a line of .jsonl is held whole).

    The validation split is, and `val_rule` in `meta.json` says which: whole documents chosen by a hash of their
    ordinal, among the lines of .jsonl, the files when there are at least 50 .txt, and built-in corpora; otherwise
    the tail of each .txt file, cut at a line. With `val_fraction` 0 there is none.

    Args:
        inputs: Files, folders (searched for .txt and .jsonl) and patterns; or `builtin:python-manual` alone.
        output: Folder to make.
        tokenizer: byte, char, bpe:SIZE, a tokenizer.json or its folder, or the name of a model on the hub.
        val_fraction: Share to hold out, at least 0 and below 1; never ends in an empty split unless 0.
        text_field: Field of a .jsonl object that holds the text.
        encoding_errors: What to do with bytes that are not UTF-8: refuse the input, or put U+FFFD there.
        shard_tokens: Most tokens in one shard file.
        progress: Called with (bytes read, bytes in all) while text is being encoded.

    Returns:
        What was written to `meta.json`.

    Raises:
        DataError: unusable input, or `output` exists; nothing is overwritten.
        TokenizerError: the tokenizer cannot be had.
        DiskFullError: the disk ran out; nothing is left of the attempt.
    """
    output = Path(output)
    if not 0 <= val_fraction < 1:
        raise DataError(f"val_fraction={val_fraction} must be at least 0 and below 1, for example 0.05")
    if shard_tokens < 1:
        raise DataError(f"shard_tokens={shard_tokens} must be at least 1")
    _refuse_existing(output)
    names = list_inputs(inputs)
    try:
        return write_corpus(
            _source(names, val_fraction, text_field, encoding_errors),
            output,
            tokenizer=tokenizer,
            val_fraction=val_fraction,
            inputs=tuple(names),
            shard_tokens=shard_tokens,
            progress=progress,
        )
    except OSError as error:
        if isinstance(error, FileExistsError) or error.errno == errno.ENOTEMPTY:
            _refuse_existing(output)
        raise DataError(f"{output} was not made: {error}") from error


def _refuse_existing(output: Path) -> None:
    if output.exists():
        raise DataError(f"{output} exists; nothing was overwritten: choose another --output, or remove it first")


def _source(
    names: list[str], val_fraction: float, text_field: str, encoding_errors: EncodingErrors
) -> DocumentSource:
    if not any(map(is_builtin, names)):
        files = find_text_files(names)
        return FileSource(files, val_fraction=val_fraction, text_field=text_field, encoding_errors=encoding_errors)
    if len(names) > 1:
        raise DataError(f"{' '.join(names)}: a built-in corpus cannot be mixed with other input; give it alone")
    return builtin_source(names[0], val_fraction)
