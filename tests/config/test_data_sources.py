"""Which corpora a run mixes, and in which proportions."""

from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parallax.config.data import integer_weights
from parallax.config.load import check_config, dump_config, load_config
from parallax.config.yaml_strict import parse_yaml
from parallax.errors import ConfigError

BOTH = "data.sources=[{path: a, weight: 0.3}, {path: b, weight: 0.9}]"


def test_one_path_is_one_source(smallest: Path):
    assert load_config(smallest).data.mixture == (("corpus", 1),)


@pytest.mark.parametrize(
    ("written", "whole"),
    [
        ("0.3 0.9", (1, 3)),
        ("1 2", (1, 2)),
        ("0.1 0.2", (1, 2)),
        ("2 4.0", (1, 2)),
        ("0.7 0.1 0.2", (7, 1, 2)),
        ("1e-3 1", (1, 1000)),
    ],
)
def test_weights_are_the_decimals_that_were_written(smallest: Path, written: str, whole: tuple[int, ...]):
    items = ", ".join(f"{{path: p{n}, weight: {weight}}}" for n, weight in enumerate(written.split()))
    config = load_config(smallest, ["data.path=null", f"data.sources=[{items}]"])
    assert tuple(source.weight for source in config.data.mixture) == whole


@given(st.lists(st.fractions(min_value=Fraction(1, 1000), max_value=1000), min_size=1, max_size=6))
def test_whole_weights_keep_the_proportions_and_have_no_common_divisor(weights: list[Fraction]):
    whole = integer_weights(weights)
    assert [Fraction(w, sum(whole)) for w in whole] == [w / sum(weights) for w in weights]
    assert integer_weights([Fraction(w) for w in whole]) == whole


def test_an_anchor_is_a_second_source_with_its_ratio(smallest: Path):
    config = load_config(smallest, ["data.anchor.path=old", "data.anchor.ratio=0.15"])
    assert config.data.mixture == (("corpus", 17), ("old", 3))


def test_a_mixture_survives_its_resolved_file(smallest: Path):
    for overrides in (["data.path=null", BOTH], ["data.anchor={path: old, ratio: 0.1}"]):
        config = load_config(smallest, [*overrides, "train.freeze=[embedding.*]"])
        assert check_config(parse_yaml(dump_config(config), "saved"), "saved") == config


@pytest.mark.parametrize(
    ("overrides", "complaint"),
    [
        ([BOTH], "data: give one of path and sources: both are given, set the other to null"),
        (["data.path=null"], "data: give one of path and sources: neither is given"),
        (
            ["data.path=null", BOTH, "data.anchor={path: c, ratio: 0.1}"],
            "anchor goes with path; beside sources, give it as one more source",
        ),
        (["data.anchor={path: corpus, ratio: 0.1}"], "corpus is given twice; name each corpus once"),
        (["data.anchor={path: c, ratio: 1}"], "data.anchor.ratio=1: input should be less than 1"),
        (["data.path=null", "data.sources=[]"], "data.sources"),
        (["data.path=null", "data.sources=[{path: a, weight: 0}]"], r"data.sources.0.weight=0: .*greater than 0"),
        (
            ["data.path=null", "data.sources=[{path: a, wieght: 1}]"],
            "'data.sources.0.wieght'; did you mean 'data.sources.N.weight'",
        ),
        (
            ["data.path=null", "data.sources=[{path: a, weight: 0.1234567}, {path: b, weight: 1}]"],
            "repeat only after 11,234,567 samples, more than 1,000,000; write them with fewer digits",
        ),
    ],
)
def test_a_mistake_says_what_to_do(smallest: Path, overrides: list[str], complaint: str):
    with pytest.raises(ConfigError, match=complaint):
        load_config(smallest, overrides)
