import types
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from parallax.config.models.choice import DEFAULT_ARCHITECTURE
from parallax.config.run import RunConfig


@dataclass(frozen=True)
class KeyReference:
    """What a reader of the reference is told of one configuration key."""

    key: str
    kind: str
    """The type, or the values there are."""
    default: str
    """As written in YAML; "required", or "derived" where other keys give it."""
    meaning: str


def list_keys(model: type[BaseModel] = RunConfig, prefix: str = "") -> list[KeyReference]:
    """Every key of a run's configuration in the order of its sections, from the annotations and docstrings."""
    found: list[KeyReference] = []
    for name, field in model.model_fields.items():
        sections = sections_of(field)
        if len(sections) > 1:
            found += _merged([list_keys(section, f"{prefix}{name}.") for section in sections])
        elif sections:
            found += list_keys(sections[0], f"{prefix}{name}.")
        else:
            meaning = " ".join((field.description or "").split())
            found.append(KeyReference(prefix + name, _kind(field.annotation), _default(field), meaning))
    return found


def sections_of(field: FieldInfo) -> list[type[BaseModel]]:
    """The configuration classes behind a field that is a section, optional or not; several where one is chosen."""
    candidates = (field.annotation, *get_args(field.annotation))
    bare = [get_args(c)[0] if get_origin(c) is Annotated else c for c in candidates]
    return [kind for kind in bare if isinstance(kind, type) and issubclass(kind, BaseModel)]


def _merged(alternatives: list[list[KeyReference]]) -> list[KeyReference]:
    """The keys of sections of which one is chosen by its `architecture`, those of several once.

    A key that only some have names them; what differs between them stands side by side.
    """
    by_key: dict[str, list[tuple[str, KeyReference]]] = {}
    for keys in alternatives:
        name = next(entry.kind for entry in keys if entry.key.endswith(".architecture"))
        for entry in keys:
            by_key.setdefault(entry.key, []).append((name, entry))
    merged = []
    for key, entries in by_key.items():
        where = "" if len(entries) == len(alternatives) else f"{', '.join(name for name, _ in entries)}: "
        kind = ", ".join(dict.fromkeys(entry.kind for _, entry in entries))
        defaults = list(dict.fromkeys(entry.default for _, entry in entries))
        default = DEFAULT_ARCHITECTURE if key.endswith(".architecture") else " or ".join(defaults)
        meaning = " / ".join(dict.fromkeys(entry.meaning for _, entry in entries))
        merged.append(KeyReference(key, kind, default, where + meaning))
    return merged


def reference_page() -> str:
    """The reference as a Markdown page; `docs/CONFIGURATION.md` is this text."""
    lines = [
        "# Configuration",
        "",
        "Every key of a run's YAML file, also settable on the command line as `key=value`. Sections nest:",
        "`model.num_heads` is `num_heads` under `model:`. Printed by `parallax keys --markdown`; do not edit.",
        "",
        "| key | type | default | meaning |",
        "|---|---|---|---|",
    ]
    for entry in list_keys():
        kind = entry.kind.replace("|", "\\|")
        lines.append(f"| `{entry.key}` | {kind} | {entry.default} | {entry.meaning} |")
    return "\n".join(lines) + "\n"


def _kind(annotation: Any) -> str:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _kind(arguments[0])
    if origin is Literal:
        return ", ".join(str(value).lower() if isinstance(value, bool) else str(value) for value in arguments)
    if origin in (Union, types.UnionType):
        return " or ".join("null" if part is type(None) else _kind(part) for part in arguments)
    if origin is list or (origin is tuple and arguments[-1] is Ellipsis):
        return f"list of {_kind(arguments[0])}"
    if origin is tuple:
        return f"[{', '.join(map(_kind, arguments))}]"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return f"{{{', '.join(annotation.model_fields)}}}"
    names = {int: "integer", float: "number", bool: "true, false", str: "text"}
    return names.get(annotation, str(annotation))


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    if field.default_factory is not None:
        return "derived"
    if isinstance(field.default, tuple):
        return str(list(field.default))
    if isinstance(field.default, bool) or field.default is None:
        return {True: "true", False: "false", None: "null"}[field.default]
    return str(field.default)
