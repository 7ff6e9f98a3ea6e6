"""What a model scores that knows nothing; `test_lm_eval.py` has what lm-eval says of it."""

import math
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from small_world import PROSE, Parallax
from torch import Tensor

from parallax.checkpoint.model_folder import write_model_folder
from parallax.config.models.dual_track import DualTrackConfig
from parallax.data.byte_tokenizer import NUM_BYTES, ByteTokenizer
from parallax.data.tokenizer_export import transformers_texts
from parallax.model.registry import build_model, materialize

CONFIG = DualTrackConfig(num_layers=1, num_heads=2, hidden_size=16, vocab_size=NUM_BYTES + 1, max_seq_len=32)


@pytest.fixture
def out(world: Path) -> Iterator[Path]:
    """Gone afterwards."""
    (world / "out").mkdir()
    np.frombuffer(PROSE.encode(), np.uint8).astype("<u4").tofile(world / "out" / "bytes.bin")
    yield world / "out"
    shutil.rmtree(world / "out")


@torch.no_grad()
def knows_nothing(*, knows_that_text_goes_on: bool) -> dict[str, Tensor]:
    """Weights of a model to which every byte is as likely as any other.

    Its states are the same whatever it reads, so the head's row of the end of a document can make that as likely
    as a byte (a head of zeros), or rule it out.
    """
    model = materialize(build_model(CONFIG), "cpu", seed=0)
    for name, parameter in model.named_parameters():
        parameter.fill_(float(parameter.dim() == 1 or name == "embedding.weight"))
    model.head.weight.zero_()
    for name, parameter in model.named_parameters():
        if name.endswith(("attention.output.weight", "mlp.down.weight")):
            parameter.zero_()
    if knows_that_text_goes_on:
        model.head.weight[NUM_BYTES] = -1e3
    return model.state_dict()


def write(folder: Path, *, knows_that_text_goes_on: bool) -> None:
    weights = knows_nothing(knows_that_text_goes_on=knows_that_text_goes_on)
    texts = transformers_texts(ByteTokenizer(), CONFIG.max_seq_len)
    write_model_folder(folder, CONFIG, weights, texts, eos_id=NUM_BYTES)


def test_a_model_to_which_all_bytes_are_alike_scores_8_bits_per_byte(parallax: Parallax, out: Path) -> None:
    write(out / "bytes", knows_that_text_goes_on=True)
    figures = parallax("eval", "out/bytes", "--data", "out/bytes.bin", "--json").json
    assert figures["tokens"] == len(PROSE.encode()) - 1
    assert figures["bits_per_byte"] == pytest.approx(8, abs=1e-6)


def test_a_head_of_zeros_pays_for_the_257th_id_too(parallax: Parallax, out: Path) -> None:
    write(out / "zeros", knows_that_text_goes_on=False)
    figures = parallax("eval", "out/zeros", "--data", "out/bytes.bin", "--json").json
    assert figures["bits_per_byte"] == pytest.approx(math.log2(257), abs=1e-6)
    # Over text, the end of the document is predicted as well, and the bytes pay for it.
    figures = parallax("eval", "out/zeros", "--data", "prose.txt", "--json").json
    count = len(PROSE.encode())
    assert figures["bits_per_byte"] == pytest.approx(math.log2(257) * (count + 1) / count, abs=1e-6)
