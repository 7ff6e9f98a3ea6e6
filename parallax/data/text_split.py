import numpy as np

from parallax.data.documents import FileSource
from parallax.data.encode import cut_batches, encode_pieces
from parallax.data.input_files import Inputs, find_text_files, list_inputs
from parallax.data.meta import storage_dtype, storage_type
from parallax.data.text_reader import EncodingErrors, ReadTally
from parallax.data.token_split import TokenSplit
from parallax.data.tokenizer import Tokenizer
from parallax.errors import DataError

MAX_TEXT_BYTES = 1 << 30


def encode_text_files(
    inputs: Inputs,
    tokenizer: Tokenizer,
    *,
    text_field: str = "text",
    encoding_errors: EncodingErrors = "strict",
    max_bytes: int = MAX_TEXT_BYTES,
) -> TokenSplit:
    """Encodes raw text into a split held in memory, as `prepare` would with all of it in one split.

    Args:
        inputs: .txt, .jsonl and .parquet files, folders, patterns.
        tokenizer: The one the text is to be read with, usually a checkpoint's.
        text_field: Field of a .jsonl object that holds the text.
        encoding_errors: What to do with bytes that are not UTF-8.
        max_bytes: Refuse more than this; tokens take 2 or 4 bytes each.

    Raises:
        DataError: unusable input, or more than `max_bytes` of it.
    """
    files = find_text_files(inputs)
    source = FileSource(files, val_fraction=0, text_field=text_field, encoding_errors=encoding_errors)
    if source.total_bytes > max_bytes:
        raise DataError(
            f"{', '.join(list_inputs(inputs))}: {source.total_bytes} bytes of text are more than the {max_bytes} "
            f"that are encoded in memory; prepare a corpus of it: parallax data prepare --input … --output …"
        )
    dtype = storage_dtype(storage_type(tokenizer.vocab_size))
    tally = ReadTally()
    batches = cut_batches(source.documents(tally), tally)
    runs = [run for batch in batches for run in encode_pieces(tokenizer, batch.pieces, dtype)]
    tokens = np.concatenate([run.tokens for run in runs]) if runs else np.empty(0, dtype)
    if not tokens.size:
        raise DataError(f"{', '.join(list_inputs(inputs))}: no text; every document is empty")
    return TokenSplit(
        [tokens],
        vocab_size=tokenizer.vocab_size,
        num_bytes=sum(run.text_bytes for run in runs),
        source=str(files[0]) if len(files) == 1 else f"{len(files)} files",
    )
