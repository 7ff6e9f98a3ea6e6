from dataclasses import dataclass

from parallax.data.builtin import builtin_source, is_builtin
from parallax.data.dataset_source import DatasetSource, is_dataset
from parallax.data.documents import DocumentSource, FileSource
from parallax.data.input_files import Inputs, find_text_files, list_inputs
from parallax.data.text_reader import EncodingErrors
from parallax.errors import DataError


@dataclass(frozen=True, kw_only=True)
class ReadOptions:
    """How input is read."""

    text_field: str = "text"
    """Field of a .jsonl object, column of a .parquet file or a data set, that holds the text."""
    encoding_errors: EncodingErrors = "strict"
    """What to do with bytes that are not UTF-8: refuse the input, or put U+FFFD there."""
    dataset_config: str | None = None
    """Of a `datasets:` input: its configuration."""
    dataset_split: str = "train"
    """Of a `datasets:` input: which split is read."""
    dataset_revision: str | None = None
    """Of a `datasets:` input: commit, branch or tag on the hub."""


def open_source(inputs: Inputs, val_fraction: float, options: ReadOptions) -> DocumentSource:
    """The documents of files, folders and patterns, or of one `builtin:` or `datasets:` name.

    Raises:
        DataError: there is no such input, or a name is mixed with other input.
    """
    names = list_inputs(inputs)
    special = [name for name in names if is_builtin(name) or is_dataset(name)]
    if not special:
        return FileSource(
            find_text_files(names),
            val_fraction=val_fraction,
            text_field=options.text_field,
            encoding_errors=options.encoding_errors,
        )
    if len(names) > 1:
        kind = "built-in corpus" if is_builtin(special[0]) else "data set"
        raise DataError(f"{' '.join(names)}: a {kind} cannot be mixed with other input; give it alone")
    if is_builtin(names[0]):
        return builtin_source(names[0], val_fraction)
    return DatasetSource(
        names[0],
        val_fraction=val_fraction,
        text_field=options.text_field,
        encoding_errors=options.encoding_errors,
        config=options.dataset_config,
        split=options.dataset_split,
        revision=options.dataset_revision,
    )
