import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from tokenizers import Regex, decoders, models, pre_tokenizers, trainers
from tokenizers import Tokenizer as Engine

from parallax.data.byte_tokenizer import ByteTokenizer
from parallax.data.library_tokenizer import LibraryTokenizer
from parallax.data.tokenizer import Tokenizer
from parallax.data.tokenizer_files import load_hub_tokenizer, load_tokenizer
from parallax.errors import TokenizerError

BPE_SAMPLE_CHARS = 64 << 20
BPE_EOS = "<|endoftext|>"
_SMALLEST_BPE = 257
_CHAR_UNKNOWN, _CHAR_EOS = "<unk>", "<eos>"


def build_tokenizer(spec: str, texts: Callable[[], Iterable[str]]) -> Tokenizer:
    """The tokenizer that `--tokenizer` names, learned from `texts()` where it has to be.

    Args:
        spec: `byte`; `char` (every character of the texts); `bpe:SIZE` (byte-level BPE of SIZE ids, EOS
            included, fewer when the text has nothing left to merge); a `tokenizer.json` or a folder with one;
            else the name of a model on the Hugging Face hub.
        texts: Makes a fresh pass over the text; not called unless something has to be learned.

    Raises:
        TokenizerError: the specification is none of these, or the file or model cannot be had.
    """
    if spec == "byte":
        return ByteTokenizer()
    if spec == "char":
        return train_char(texts())
    kind, colon, size = spec.partition(":")
    if colon and kind == "bpe":
        num_ids = _bpe_size(spec, size)
        return train_bpe(texts(), num_ids)
    path = Path(spec).expanduser()
    if path.exists():
        return load_tokenizer(path)
    if spec.endswith(".json") or spec.startswith((".", "/", "~")):
        raise TokenizerError(f"tokenizer {spec!r}: no such file or folder")
    return load_hub_tokenizer(spec)


def is_learned(spec: str) -> bool:
    """Whether `build_tokenizer` reads the texts for this specification."""
    return spec == "char" or spec.startswith("bpe:")


def train_char(texts: Iterable[str]) -> LibraryTokenizer:
    """One id per distinct character, by code point, after `<unk>` (id 0) and `<eos>` (id 1)."""
    alphabet: set[str] = set()
    for text in texts:
        alphabet.update(text)
    tokens = [_CHAR_UNKNOWN, _CHAR_EOS, *sorted(alphabet)]
    vocabulary = {token: index for index, token in enumerate(tokens)}
    engine = Engine(models.WordLevel(vocabulary, unk_token=_CHAR_UNKNOWN))
    engine.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), behavior="isolated")
    engine.decoder = decoders.Fuse()
    return LibraryTokenizer(json.loads(engine.to_str()), _CHAR_EOS)


def train_bpe(texts: Iterable[str], size: int) -> LibraryTokenizer:
    """Byte-level BPE with GPT-2's splitting of words, learned from an evenly spaced sample of the texts.

    The sample has at most 64 Mi characters, whatever the corpus; see `sample_evenly`.
    """
    engine = Engine(models.BPE())
    engine.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    engine.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=[BPE_EOS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    engine.train_from_iterator(sample_evenly(texts, BPE_SAMPLE_CHARS), trainer=trainer)
    return LibraryTokenizer(json.loads(engine.to_str()), BPE_EOS)


def sample_evenly(texts: Iterable[str], limit_chars: int) -> Iterator[str]:
    """Every 2^k-th text, with the smallest k for which they fit into `limit_chars` characters together.

    One pass, without knowing the number of texts: whenever what was kept grows too large, every second one
    of it is let go and the stride doubles. At least the first text is given, whatever its length.
    """
    kept: list[str] = []
    kept_chars, stride = 0, 1
    for index, text in enumerate(texts):
        if index % stride:
            continue
        kept.append(text)
        kept_chars += len(text)
        while kept_chars > limit_chars and len(kept) > 1:
            kept = kept[::2]
            kept_chars = sum(map(len, kept))
            stride *= 2
    return iter(kept)


def _bpe_size(spec: str, size: str) -> int:
    if not size.isascii() or not size.isdigit() or int(size) < _SMALLEST_BPE:
        raise TokenizerError(
            f"tokenizer {spec!r}: SIZE must be a whole number of at least {_SMALLEST_BPE} "
            f"(256 bytes and {BPE_EOS}), for example bpe:8000"
        )
    return int(size)
