import re
from collections.abc import Hashable
from typing import Any

import yaml

from parallax.errors import ConfigError

_EXPONENT_OR_DOT = r"(\d+\.\d*([eE][-+]?\d+)?|\.\d+([eE][-+]?\d+)?|\d+[eE][-+]?\d+)"
_PLAIN_VALUES = {
    "null": (r"^(~|null|Null|NULL|)$", ["~", "n", "N", ""]),
    "bool": (r"^(true|True|TRUE|false|False|FALSE)$", list("tTfF")),
    "int": (r"^[-+]?(0|[1-9][0-9_]*)$", list("-+0123456789")),
    "float": (rf"^[-+]?{_EXPONENT_OR_DOT}$", list("-+.0123456789")),
}
"""Tag -> what an unquoted value of it looks like, and the characters that it can begin with."""


class _StrictLoader(yaml.SafeLoader):
    """YAML as people expect it: a key given twice is an error, and unquoted values mean what they look like.

    PyYAML implements YAML 1.1, in which `off` is false, `3:10` is 190 and `3e-4` is text; here they are a
    word, a word and a number, as in YAML 1.2.
    """

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: dict[Any, yaml.Mark] = {}
        for key_node, _ in node.value:
            mark = key_node.start_mark
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, Hashable):
                raise ConfigError(f"{mark.name}: key {key!r} in line {mark.line + 1} is not a word; quote it")
            if key in seen:
                raise ConfigError(
                    f"{mark.name}: key {key!r} is given twice, in line {seen[key].line + 1} "
                    f"and in line {mark.line + 1}; remove one"
                )
            seen[key] = mark
        return super().construct_mapping(node, deep=deep)


class _StrictDumper(yaml.SafeDumper):
    """Quotes every text that YAML 1.1 or the loader above would read as something else."""


# The loader forgets YAML 1.1's forms; the dumper keeps them, so that any reader gives the same text back.
_StrictLoader.yaml_implicit_resolvers = {}
for _tag, (_pattern, _starts) in _PLAIN_VALUES.items():
    for _class in (_StrictLoader, _StrictDumper):
        _class.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(_pattern), _starts)


def parse_yaml(text: str, source: str) -> Any:
    """Parses YAML; `source` is named in errors.

    Raises:
        ConfigError: not YAML, or a key given twice.
    """
    try:
        loader = _StrictLoader(text)
        loader.name = source
        return loader.get_single_data()
    except (yaml.YAMLError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f" in line {mark.line + 1}" if mark else ""
        problem = " ".join(str(getattr(error, "problem", error)).split())
        raise ConfigError(f"{source}: not valid YAML{where}: {problem}") from None


def format_yaml(value: Any) -> str:
    """YAML text of plain values, keys in their order; `parse_yaml` gives an equal value back."""
    # Escaping all but ASCII: PyYAML writes U+0085 as it is, which it then reads as the end of a line.
    return yaml.dump(value, Dumper=_StrictDumper, sort_keys=False, allow_unicode=False)
