"""JSON has no infinity: a perplexity beyond a float is null, and everything else stays."""

import json
import math

from parallax.cli.output import print_json


def test_figures_that_json_cannot_hold_are_null_at_any_depth(capsys) -> None:
    print_json({"loss": 800.0, "perplexity": math.inf, "unigram": {"perplexity": math.nan}, "list": [math.inf, 1]})
    [line] = capsys.readouterr().out.splitlines()
    found = json.loads(line)
    assert found == {"loss": 800.0, "perplexity": None, "unigram": {"perplexity": None}, "list": [None, 1]}
