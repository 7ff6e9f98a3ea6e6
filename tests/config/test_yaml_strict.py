"""YAML as people expect it."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parallax.config.yaml_strict import format_yaml, parse_yaml
from parallax.errors import ConfigError

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=10)
    | st.from_regex(r"[-+.0-9eE_:xo]{1,6}", fullmatch=True)
)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("3e-4", 3e-4),
        ("3E-4", 3e-4),
        ("1e5", 1e5),
        ("-2.5e+3", -2500.0),
        ("1.5e3", 1500.0),
        (".5", 0.5),
        ("1.", 1.0),
        ("0.1", 0.1),
    ],
)
def test_numbers_are_read_however_they_are_written(text: str, number: float) -> None:
    value = parse_yaml(text, "here")
    assert isinstance(value, float)
    assert value == number


@pytest.mark.parametrize(("text", "number"), [("0", 0), ("-7", -7), ("+7", 7), ("1_000", 1000)])
def test_integers_stay_integers(text: str, number: int) -> None:
    value = parse_yaml(text, "here")
    assert isinstance(value, int)
    assert value == number


@pytest.mark.parametrize(
    "text",
    ["off", "on", "yes", "no", "3:10", "1:30:00", "010", "08", "2024-01-01", "e5", "1e", "-", "lr3e-4", "0x1f"],
)
def test_words_and_ranges_are_text(text: str) -> None:
    assert parse_yaml(f"key: {text}" if text != "-" else "'-'", "here") in ({"key": text}, text)


@pytest.mark.parametrize(
    ("text", "value"), [("true", True), ("False", False), ("null", None), ("~", None), ("", None), ("'3'", "3")]
)
def test_truth_absence_and_quotes_mean_what_they_say(text: str, value: object) -> None:
    assert parse_yaml(text, "here") is value or parse_yaml(text, "here") == value


def test_a_key_given_twice_names_both_lines() -> None:
    with pytest.raises(ConfigError) as caught:
        parse_yaml("a: 1\nb:\n  c: 1\n  d: 2\n  c: 3\n", "run.yaml")
    assert str(caught.value) == "run.yaml: key 'c' is given twice, in line 3 and in line 5; remove one"


def test_one_key_in_two_sections_is_not_given_twice() -> None:
    assert parse_yaml("a: {c: 1}\nb: {c: 2}", "here") == {"a": {"c": 1}, "b": {"c": 2}}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: b: c", "run.yaml: not valid YAML in line 1: mapping values are not allowed here"),
        ("a: 1\nb: [1", "run.yaml: not valid YAML in line 2: expected ',' or ']', but got '<stream end>'"),
        ("a: 1\n---\nb: 2", "run.yaml: not valid YAML in line 2: but found another document"),
        ("a: *b", "run.yaml: not valid YAML in line 1: found undefined alias 'b'"),
        ("a: 1\n? [x]\n: 2", "run.yaml: key ['x'] in line 2 is not a word; quote it"),
    ],
)
def test_what_is_not_yaml_names_the_line_and_the_reason(text: str, expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_yaml(text, "run.yaml")
    assert str(caught.value) == expected


@pytest.mark.parametrize(
    "text", ["a: \x00", "a:\t- b", "a: !!python/object/apply:os.getcwd []", "a: !!int x", "a: 'b", "{", "%x"]
)
def test_any_other_nonsense_is_one_line_too(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_yaml(text, "run.yaml")
    assert str(caught.value).startswith("run.yaml: not valid YAML")
    assert "\n" not in str(caught.value)


@given(SCALARS, st.lists(SCALARS, max_size=2))
def test_what_is_written_is_read_back_equal(value: object, several: list[object]) -> None:
    written = {"key": value, "several": several, "section": {"key": value}}
    found = parse_yaml(format_yaml(written), "here")
    # Compared as text as well, because 1 == 1.0 == True.
    assert found == written
    assert repr(found) == repr(written)


def test_keys_are_written_in_their_order() -> None:
    assert format_yaml({"b": 1, "a": "off"}) == "b: 1\na: 'off'\n"


@pytest.mark.parametrize("number", [1e-8, 5e-324, 1e22, 1 / 3, math.pi * 1e-30])
def test_floats_survive_to_the_last_bit(number: float) -> None:
    assert parse_yaml(format_yaml(number), "here") == number
