from pathlib import Path

from parallax.config.load import known_keys
from parallax.config.reference import list_keys, reference_page
from parallax.config.run import RunConfig

PAGE = Path(__file__).parents[2] / "docs" / "CONFIGURATION.md"


def test_the_page_in_docs_is_the_one_that_the_code_prints():
    assert PAGE.read_text(encoding="utf-8") == reference_page()


def test_every_key_has_a_meaning_and_a_default():
    assert all(entry.meaning and entry.default for entry in list_keys())


def test_the_reference_lists_exactly_the_keys_that_errors_suggest():
    listed = [entry.key for entry in list_keys()]
    sections = {key.rpartition(".")[0] for key in listed}
    assert set(listed) == set(known_keys(RunConfig)) - sections
