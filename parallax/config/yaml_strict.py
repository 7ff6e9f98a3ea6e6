import re
from typing import Any

import yaml

from parallax.errors import ConfigError


class _StrictLoader(yaml.SafeLoader):
    """YAML as people expect it: a key given twice is an error, and 3e-4 is a number."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: dict[Any, yaml.Mark] = {}
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                raise ConfigError(
                    f"{key_node.start_mark.name}: key {key!r} is given twice, in line {seen[key].line + 1} "
                    f"and in line {key_node.start_mark.line + 1}; remove one"
                )
            seen[key] = key_node.start_mark
        return super().construct_mapping(node, deep=deep)


# YAML 1.1, which PyYAML implements, wants a dot and a signed exponent; everyone writes 3e-4.
_StrictLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?\d[\d_]*(\.\d*)?[eE][-+]?\d+$"), list("-+0123456789")
)


def parse_yaml(text: str, source: str) -> Any:
    """Parses YAML; `source` is named in errors.

    Raises:
        ConfigError: not YAML, or a key given twice.
    """
    loader = _StrictLoader(text)
    loader.name = source
    try:
        return loader.get_single_data()
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" in line {mark.line + 1}" if mark else ""
        raise ConfigError(f"{source}: not valid YAML{where}: {getattr(error, 'problem', error)}") from None
    finally:
        loader.dispose()
