"""Every architecture of the registry, at every layout it claims: built, trained, saved, loaded, and generating."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from cases import LAYOUTS
from parity import ALONE, Case, Ready
from saving import Saved, load_and_go_on, train_and_save
from torch import Tensor
from worker_pool import WorkerPool
from zoo_models import zoo_config

from parallax.generate.decode import generate
from parallax.generate.sampling import SamplingOptions
from parallax.model.mode import evaluation_mode
from parallax.model.registry import ARCHITECTURES

PROMPT, NEW_TOKENS = [3, 1, 4, 1], 8
"""Longer than the window of 8 tokens between them, so that it moves on."""
CLAIMED = [
    (architecture, name)
    for architecture in ARCHITECTURES
    for name in ("alone", "track2", "ddp2", "fsdp2")
    if zoo_config(architecture).num_tracks % LAYOUTS[name].track == 0
]


class Life(NamedTuple):
    """What one rank held and wrote."""

    saved: Saved
    loaded: Saved
    written: list[int]
    """With a cache, by the model that was loaded and took another step."""
    recomputed: list[int]
    """By the same model without one."""
    cached: Tensor
    """Logits (T, V) of the prompt, token by token through a cache."""
    logits: Tensor
    """All at once."""


def live(case: Case, run: Path) -> Life:
    """The life of this rank's part of a model; without other ranks, of the whole."""
    saved = train_and_save(case, run)
    part, loaded = load_and_go_on(case, run)
    with torch.inference_mode(), evaluation_mode(part.engine.model), part.engine.inference():
        written, recomputed = _write(part), _write_without_cache(part)
        cached, logits = _logits(part)
    return Life(saved, loaded, written, recomputed, cached, logits)


def _write(part: Ready) -> list[int]:
    greedy = SamplingOptions(temperature=0)
    [found] = generate(part.engine.model, [PROMPT], max_new_tokens=NEW_TOKENS, options=greedy, seed=0, eos_id=None)
    return found.tokens


def _write_without_cache(part: Ready) -> list[int]:
    window = part.engine.model.config.max_seq_len
    context, written = list(PROMPT), []
    for _ in range(NEW_TOKENS):
        if len(context) > window:
            context = context[-(window // 2) :]
        written.append(int(part.engine.model(torch.tensor([context]))[0, -1].argmax()))
        context.append(written[-1])
    return written


def _logits(part: Ready) -> tuple[Tensor, Tensor]:
    model, tokens = part.engine.model, torch.tensor([PROMPT])
    cache = model.build_cache(1)
    one_by_one = [model(token, cache=cache)[0] for token in tokens.split(1, dim=1)]
    return torch.cat(one_by_one).clone(), model(tokens)[0].clone()


def test_one_name_at_least_claims_ranks_of_its_tracks() -> None:
    assert {name for architecture, name in CLAIMED if architecture == "gpt2_parallel"} == {
        "alone",
        "track2",
        "ddp2",
        "fsdp2",
    }


@pytest.mark.parametrize(("architecture", "layout"), CLAIMED, ids=["-".join(pair) for pair in CLAIMED])
def test_it_trains_saves_loads_and_generates(
    architecture: str, layout: str, tmp_path: Path, pool_of: Callable[[int], WorkerPool]
) -> None:
    case = Case(layout=LAYOUTS[layout], variant=architecture, dropout=0.1)
    ranks = [live(case, tmp_path)] if case.layout == ALONE else pool_of(2).run(live, case, tmp_path)
    for rank in ranks:
        for ours, theirs in ((rank.loaded.at_save, rank.saved.at_save), (rank.loaded.later, rank.saved.later)):
            torch.testing.assert_close(ours, theirs, rtol=0, atol=0)
        assert rank.written == rank.recomputed == ranks[0].written
        torch.testing.assert_close(rank.cached, rank.logits, rtol=1e-10, atol=1e-10)
