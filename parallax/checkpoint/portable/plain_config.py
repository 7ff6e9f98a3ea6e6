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
    if isinstance(annotation, type):
        return annotation.__name__
    return str(annotation).replace("typing.", "").replace("'", '"')
