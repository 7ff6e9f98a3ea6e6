"""What a rank needs, whether it fits, and the change that makes it."""

from collections.abc import Callable

import pytest
from tiny_runs import TINY

from parallax.config.load import check_config, check_model_config
from parallax.config.run import RunConfig
from parallax.errors import ConfigError
from parallax.train.planning.advice import find_change, need_of_run, with_settings
from parallax.train.planning.fit import MIB, Need, parse_bytes
from parallax.train.planning.search import family_keys, largest_that_fits, scaled, search_layouts
from parallax.train.planning.step_time import Machine


def _run(**settings: object) -> RunConfig:
    raw: dict[str, dict[str, object]] = {"data": {"path": "unused"}, "runtime": {"device": "cpu"}}
    asked = {**TINY, "train.global_batch": 8, **{key.replace("__", "."): v for key, v in settings.items()}}
    for key, value in asked.items():
        section, _, name = key.partition(".")
        if section in ("model", "train", "parallel", "deepspeed", "loss", "optim"):
            raw.setdefault(section, {})[name] = value
    return check_config(raw, source="tiny")


@pytest.mark.parametrize(("text", "size"), [("6GiB", 6 * 2**30), ("1.5 MiB", 3 * 2**19), ("6GB", 6 * 10**9)])
def test_sizes_are_read_with_their_units(text: str, size: int) -> None:
    assert parse_bytes(text) == size


@pytest.mark.parametrize("text", ["6 gigs", "", "0GiB", "-1GiB"])
def test_what_is_no_size_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ConfigError, match="write one such as 6GiB"):
        parse_bytes(text)


def test_a_rank_that_does_not_fit_is_given_a_change_that_does_and_keeps_the_batch() -> None:
    config = _run()
    limit = need_of_run(config, 1).total_bytes - 1
    change = find_change(config, limit, world_size=1)
    assert change is not None
    changed = with_settings(config, change.settings)
    assert need_of_run(changed, 1).total_bytes <= limit
    assert changed.train.global_batch % changed.train.micro_batch == 0


def _only(wanted: dict[str, object]) -> Callable[[RunConfig, int, int], Need]:
    def plan(config: RunConfig, world_size: int, rank: int) -> Need:
        found = {key: getattr(getattr(config, key.split(".")[0]), key.split(".")[1]) for key in wanted}
        return Need({"all": 0 if found == wanted else 100})

    return plan


@pytest.mark.parametrize(
    ("settings", "world_size", "wanted"),
    [
        ({}, 1, {"train.activation_checkpointing": True}),
        ({"train.global_batch": 8}, 2, {"parallel.dp_shard": 2}),
        ({}, 2, {"parallel.track": 2}),
        ({"parallel.engine": "deepspeed"}, 1, {"deepspeed.offload_optimizer": True}),
    ],
)
def test_every_kind_of_change_is_tried(
    settings: dict[str, object], world_size: int, wanted: dict[str, object]
) -> None:
    config = _run(**settings, **{"train.micro_batch": 4})
    change = find_change(config, 10, world_size=world_size, plan=_only(wanted))
    assert change is not None
    assert change.settings == wanted


def test_no_change_is_named_where_none_fits() -> None:
    assert find_change(_run(), 10, world_size=1, plan=lambda *_: Need({"all": 11})) is None


def test_the_search_puts_the_fastest_first_and_all_fit() -> None:
    found = search_layouts(_run(), 64 * MIB, world_size=2, machine=Machine())
    seconds = [change.seconds for change in found.best]
    assert seconds
    assert seconds == sorted(seconds)
    assert all(change.need.fits(64 * MIB) for change in found.best)


def test_the_largest_of_a_family_fits_and_the_next_does_not() -> None:
    config = _run()
    limit = need_of_run(scaled(config, 6), 1).total_bytes
    found, parameters = largest_that_fits(config, limit, world_size=1)
    assert found.model.num_heads == 6
    assert found.model.head_dim == config.model.head_dim
    assert parameters > 0
    assert not need_of_run(scaled(config, 7), 1).fits(limit)


def test_the_family_of_a_gpt2_in_pairs_keeps_its_layers_even() -> None:
    sizes = {"num_layers": 6, "num_heads": 4, "hidden_size": 64, "vocab_size": 300, "max_seq_len": 32}
    raw = {"model": {"architecture": "gpt2_parallel", **sizes}, "data": {"path": "x"}, "train": {"max_steps": 1}}
    larger = scaled(check_config(raw, "test"), 6)
    assert family_keys(larger) == (
        "model.num_layers=8 model.num_heads=6 model.hidden_size=96 model.intermediate_size=384"
    )
    assert check_model_config(larger.model.model_dump(), "test") == larger.model
