from pathlib import Path

from parallax.data.encode_pool import check_num_workers
from parallax.data.input_files import Inputs, list_inputs
from parallax.data.open_source import ReadOptions, open_source
from parallax.data.partial import partial_folder
from parallax.data.prepare import Note, finished_corpus, refuse_existing
from parallax.data.token_file import TOKEN_FILE_SUFFIX, TokenFileNotes, notes_file
from parallax.data.tokenizer_files import load_tokenizer
from parallax.data.write_corpus import CorpusSettings, Progress
from parallax.errors import DataError
from parallax.runtime.files import publish_file, write_text_atomic

_ONE_SHARD = 1 << 62


def tokenize_file(
    inputs: Inputs,
    output: str | Path,
    *,
    tokenizer: str = "byte",
    options: ReadOptions | None = None,
    num_workers: int | None = None,
    progress: Progress | None = None,
    learning: Progress | None = None,
    note: Note | None = None,
) -> TokenFileNotes:
    """Writes all text as one file of little-endian uint32 ids and nothing else, an EOS after each document.

    `OUTPUT.json` beside it has counts, checksum and the tokenizer; the ids appear last, complete or not at all.
    Work that was cut off continues as that of `prepare`.

    Args:
        inputs: As for `prepare`.
        output: File to make; its name must end in .bin.
        tokenizer: As for `prepare`.
        options: How input is read.
        num_workers: As for `prepare`.
        progress: As for `prepare`.
        learning: As for `prepare`.
        note: As for `prepare`.

    Raises:
        As `prepare`.
    """
    output = Path(output)
    if not output.name.endswith(TOKEN_FILE_SUFFIX) or output.name == TOKEN_FILE_SUFFIX:
        raise DataError(f"--output {output}: expected a name that ends in {TOKEN_FILE_SUFFIX}, such as train.bin")
    refuse_existing(output)
    notes_path = notes_file(output)
    if notes_path.exists() and not partial_folder(output).is_dir():
        refuse_existing(notes_path)
    settings = CorpusSettings(
        tokenizer=tokenizer,
        val_fraction=0.0,
        inputs=tuple(list_inputs(inputs)),
        shard_tokens=_ONE_SHARD,
        dtype="uint32",
        num_workers=check_num_workers(num_workers),
    )
    source = open_source(inputs, 0.0, options or ReadOptions())
    with finished_corpus(source, output, settings, progress, learning, note) as (partial, meta):
        notes = TokenFileNotes.of(meta, load_tokenizer(partial.corpus))
        write_text_atomic(notes_path, notes.model_dump_json(indent=2) + "\n")
        publish_file(partial.corpus / meta.train.shards[0].name, output)
    return notes
