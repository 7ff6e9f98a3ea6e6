import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from parallax.generate.stream import TextStream

TEXT = "Grüße aus 東京 🗼: naïve café, ½ €, e\N{COMBINING ACUTE ACCENT} 👩‍🚀 done. "
REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


def decode_bytes(tokens):
    return bytes(tokens).decode("utf-8", errors="replace")


def stream(decode, tokens):
    text = TextStream(decode)
    return [*(text.push(token) for token in tokens), text.finish()]


def trained(pre_tokenizer, decoder, **options):
    tokenizer = Tokenizer(models.BPE(**options))
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizer, decoder
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        show_progress=False,
        special_tokens=["<end>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
        if isinstance(pre_tokenizer, pre_tokenizers.ByteLevel)
        else [],
    )
    tokenizer.train_from_iterator([TEXT * 3], trainer)
    return tokenizer


BYTE_LEVEL = trained(pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel())
METASPACE = trained(pre_tokenizers.Metaspace(), decoders.Metaspace())


@settings(deadline=None)
@given(st.text())
@example(TEXT)
def test_bytes_of_a_text_stream_as_its_characters_and_never_as_replacements(text):
    pieces = stream(decode_bytes, text.encode())
    assert "".join(pieces) == text
    if REPLACEMENT not in text:
        assert all(REPLACEMENT not in piece for piece in pieces)
        assert pieces[-1] == ""


@settings(deadline=None)
@given(st.binary(max_size=60))
@example(b"\xf0\x9f\x98\xf0\x9f\x98\x80\xe2\x82A\xe2\x82")
def test_any_bytes_stream_to_what_the_whole_decodes_to(data):
    assert "".join(stream(decode_bytes, data)) == decode_bytes(data)


def test_a_character_comes_with_its_last_byte():
    assert stream(decode_bytes, "a€b".encode()) == ["a", "", "", "€", "b", ""]


def test_bytes_that_are_no_text_do_not_hold_up_the_stream():
    text = TextStream(decode_bytes)
    shown = "".join(text.push(0xFF) for _ in range(50))
    assert shown == REPLACEMENT * 47
    assert shown + text.finish() == REPLACEMENT * 50


def test_an_unfinished_character_is_shown_at_the_end_and_the_stream_starts_anew():
    text = TextStream(decode_bytes)
    assert text.push(0xE2) == ""
    assert text.finish() == REPLACEMENT
    assert [text.push(token) for token in b"ok"] == ["o", "k"]
    assert text.finish() == ""


@settings(deadline=None)
@given(st.lists(st.integers(0, BYTE_LEVEL.get_vocab_size() - 1), max_size=60))
@example(BYTE_LEVEL.encode(TEXT).ids)
def test_any_byte_level_pieces_stream_to_what_the_whole_decodes_to(tokens):
    assert "".join(stream(BYTE_LEVEL.decode, tokens)) == BYTE_LEVEL.decode(tokens)


@settings(deadline=None)
@given(st.lists(st.integers(0, METASPACE.get_vocab_size() - 1), max_size=60))
@example(METASPACE.encode(TEXT).ids)
def test_spaces_between_pieces_survive_a_decoder_that_strips_the_first(tokens):
    assert "".join(stream(METASPACE.decode, tokens)) == METASPACE.decode(tokens)


def test_tokens_without_text_neither_print_nor_lose_the_context():
    end = METASPACE.token_to_id("<end>")
    hello, world = METASPACE.encode("Grüße").ids, METASPACE.encode("done").ids
    pieces = stream(METASPACE.decode, [*hello, end, *world])
    assert "".join(pieces) == "Grüße done"
    assert pieces[len(hello)] == ""


def byte_fallback_decode(tokens):
    """Llama's way: each byte of an unfinished character is a replacement of its own."""
    try:
        return bytes(tokens).decode()
    except UnicodeDecodeError as error:
        return bytes(tokens[: error.start]).decode() + REPLACEMENT * (len(tokens) - error.start)


def test_decoders_that_show_every_waiting_byte_stream_whole_characters():
    assert "".join(stream(byte_fallback_decode, TEXT.encode())) == TEXT
    assert stream(byte_fallback_decode, "x🗼".encode()) == ["x", "", "", "", "🗼", ""]


@pytest.mark.parametrize("unit", ["word ", "né€🗼"])
def test_the_cost_of_a_token_does_not_grow_with_the_text(unit):
    longest = 0

    def decode(tokens):
        nonlocal longest
        longest = max(longest, len(tokens))
        return decode_bytes(tokens)

    stream(decode, (unit * 200).encode())
    assert longest <= 8
