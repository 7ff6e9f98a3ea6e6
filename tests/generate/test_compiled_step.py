"""One compiled step over a cache of fixed size writes what the eager step over a growing cache writes."""

import shutil

import pytest
import torch

from parallax.errors import BackendError
from parallax.generate.batch import DecodingBatch
from parallax.generate.decode import generate
from parallax.generate.sampling import SamplingOptions
from parallax.model.static_cache import StaticCacheView

PROMPTS = [[3], [5, 1, 4, 1, 5, 9, 2], [2, 7, 1, 8]]

pytestmark = [
    pytest.mark.slow,  # compiling takes a quarter of a minute
    pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs g++"),
    pytest.mark.filterwarnings("ignore"),  # torch's compiler warns of itself
]


@torch.inference_mode()
def test_logits_equal_the_eager_ones_while_rows_are_dropped_and_outgrow_the_window(model):
    eager = DecodingBatch(model, PROMPTS, max_new_tokens=20)
    compiled = DecodingBatch(model, PROMPTS, max_new_tokens=20, compiled=True)
    generator = torch.Generator().manual_seed(0)
    for step in range(20):
        if step == 9:
            for batch in (eager, compiled):
                batch.keep([0, 2])
        if step == 14:
            for batch in (eager, compiled):
                batch.keep([1])
        tokens = torch.randint(31, (len(eager.logits),), generator=generator).tolist()
        for batch in (eager, compiled):
            batch.append(tokens)
        torch.testing.assert_close(compiled.logits, eager.logits, rtol=0, atol=1e-12)
        assert torch.equal(compiled.seen, eager.seen)


def test_the_same_tokens_come_out_greedy_and_drawn(model):
    for temperature in (0.0, 0.9):
        written = [
            generate(
                model,
                PROMPTS,
                max_new_tokens=16,
                options=SamplingOptions(temperature=temperature),
                seed=4,
                eos_id=7,
                compile_step=compile_step,
            )
            for compile_step in (False, True)
        ]
        assert written[0] == written[1]
        assert any(row.tokens for row in written[0])


def test_a_static_cache_takes_one_token_a_row(model):
    cache = model.build_cache(2)
    view = StaticCacheView(
        cache.keys.unbind(), cache.values.unbind(), torch.zeros(2, dtype=torch.long), cache.grid
    )
    with pytest.raises(ValueError, match="one token per row, not 3"):
        view.begin(3)


def test_without_a_compiler_the_way_out_is_named(model, monkeypatch):
    monkeypatch.setattr("shutil.which", lambda name: None)
    with pytest.raises(BackendError, match=r"needs the C\+\+ compiler g\+\+.*without --compile"):
        DecodingBatch(model, PROMPTS, max_new_tokens=1, compiled=True)
