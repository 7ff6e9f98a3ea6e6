from types import UnionType
from typing import Annotated, Union, get_args, get_origin

from parallax.config.section import Section


def plain_fields(section: type[Section]) -> str:
    """The fields of a configuration as those of a dataclass, with their documentation and without defaults.

    A configuration that was written down is resolved and checked: it needs neither defaults nor checks again.
    """
    lines = []
    for name, field in section.model_fields.items():
        lines.append(f"    {name}: {_type_name(field.annotation)}")
        if field.description:
            lines.append(f'    """{field.description}"""')
    return "\n".join(lines) + "\n"


def _type_name(annotation: object) -> str:
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _type_name(inner[0])
    if origin in (Union, UnionType):
        return " | ".join(map(_type_name, inner))
    if origin is list:
        return f"list[{_type_name(inner[0])}]"
    if isinstance(annotation, type):
        return annotation.__name__
    return str(annotation).replace("typing.", "").replace("'", '"')
