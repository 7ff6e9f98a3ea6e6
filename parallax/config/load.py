import difflib
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from parallax.config.data import DataSource
from parallax.config.models.base import ModelConfig
from parallax.config.models.choice import AnyModelConfig
from parallax.config.reference import sections_of
from parallax.config.run import RunConfig
from parallax.config.section import Section
from parallax.config.yaml_strict import format_yaml, parse_yaml
from parallax.errors import ConfigError

Settings = TypeVar("Settings", bound=BaseModel)


def load_config(path: str | Path, overrides: Iterable[str] = ()) -> RunConfig:
    """Reads a run's YAML file, applies `key=value` overrides (dotted keys, YAML values) and checks it.

    Raises:
        ConfigError: one line naming the key, the value and what was expected.
    """
    path = Path(path)
    raw = parse_yaml(read_settings_file(path), source=str(path))
    if not isinstance(raw, dict):
        raise ConfigError(f"{path}: expected sections such as `model:` and `train:`, found {raw!r}")
    # A section whose keys are all commented out is an absent one.
    raw = {key: value for key, value in raw.items() if value is not None}
    for override in overrides:
        _apply_override(raw, override)
    run = raw.setdefault("run", {})
    if isinstance(run, dict):
        run.setdefault("name", path.stem)
    return check_config(raw, source=str(path))


def check_config(raw: dict[str, Any], source: str) -> RunConfig:
    """Validates a nested dictionary into a `RunConfig`; `source` is named in errors."""
    return check_settings(RunConfig, raw, source, _nearest_key)


class _ModelAlone(Section):
    """A model's section where there is no run around it."""

    model: AnyModelConfig


def check_model_config(raw: Any, source: str) -> ModelConfig:
    """Validates a model section that stands alone; `source` is named in errors.

    Raises:
        ConfigError: one line naming the key, the value and what was expected.
    """
    return check_settings(_ModelAlone, {"model": raw}, source, _nearest_key).model


def check_settings(kind: type[Settings], raw: Any, source: str, nearest: Callable[[str], str]) -> Settings:
    """Validates values into a class of settings.

    Args:
        kind: the class.
        raw: as read.
        source: is named in errors.
        nearest: for an unknown key, a hint at the nearest known one.

    Raises:
        ConfigError: one line naming the key, the value and what was expected.
    """
    try:
        return kind.model_validate(raw)
    except ValidationError as error:
        raise ConfigError(f"{source}: {_explain_mistake(error, nearest)}") from None


def dump_model_config(config: ModelConfig) -> str:
    """A configuration file that has a model section and nothing else: what a run's can begin with."""
    return format_yaml({"model": config.model_dump(mode="json")})


def dump_config(config: RunConfig) -> str:
    """The resolved configuration as YAML text."""
    return format_yaml(config.resolved())


def read_settings_file(path: Path, what: str = "configuration") -> str:
    """The text of a configuration or study file.

    Raises:
        ConfigError: it is missing, naming the nearest beside it, or cannot be read.
    """
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        near = difflib.get_close_matches(path.name, (p.name for p in path.parent.glob("*.yaml")), 1)
        hint = f"; did you mean {path.parent / near[0]}?" if near else ""
        raise ConfigError(f"{path}: no such {what} file{hint}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from None


def _apply_override(raw: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    parts = key.split(".")
    if not equals or not all(parts):
        raise ConfigError(f"override {override!r}: expected key=value, for example train.max_steps=100")
    node: Any = raw
    for part in parts[:-1]:
        if node.get(part) is None:
            node[part] = {}
        node = node[part]
        if not isinstance(node, dict):
            raise ConfigError(f"override {override!r}: {part!r} is a value, not a section")
    node[parts[-1]] = parse_yaml(text, source=f"override {override!r}")


def _explain_mistake(error: ValidationError, nearest: Callable[[str], str]) -> str:
    """The first mistake as one line.

    Args:
        error: what a class of settings found.
        nearest: for an unknown key, a hint at the nearest known one.
    """
    # A default computed from a field that is itself wrong is reported a second time; only the cause helps.
    found = [e for e in error.errors() if e["type"] != "default_factory_not_called"]
    found.sort(key=lambda e: e["type"] != "extra_forbidden")
    first = found[0]
    tagged = ".".join(str(part) for part in first["loc"])
    location = _without_architecture(tagged)
    more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
    if first["type"] == "extra_forbidden":
        return f"unknown key {location!r}; {nearest(tagged)}{more}"
    if first["type"] == "union_tag_invalid":
        return _explain_architecture(location, first["ctx"])
    if first["type"] == "invalid_key":
        return f"unknown key {first['input']!r}; keys are words{more}"
    if first["type"] == "model_type":
        return f"{location}={first['input']!r}: expected a section of keys{more}"
    if first["type"] == "missing":
        return f"{location} is missing{more}"
    if first["type"] == "value_error":
        where = f"{location}: " if location else ""
        return f"{where}{first['ctx']['error']}{more}"
    return f"{location}={first['input']!r}: {first['msg'][0].lower()}{first['msg'][1:]}{more}"


def _explain_architecture(location: str, context: dict[str, Any]) -> str:
    given, known = context["tag"], re.findall(r"'(.*?)'", context["expected_tags"])
    near = difflib.get_close_matches(given, known, 1)
    hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
    return f"{location}.architecture={given!r} is unknown; {hint}"


def _without_architecture(location: str) -> str:
    """The key as users write it: behind `model`, the name of the architecture whose class was tried stands."""
    section, _, rest = location.partition(".")
    if section != "model":
        return location
    return ".".join(part for part in (section, rest.partition(".")[2]) if part)


def _nearest_key(location: str) -> str:
    section, _, rest = location.partition(".")
    architecture = rest.partition(".")[0] if section == "model" else None
    location = _without_architecture(location)
    known = list(dict.fromkeys(known_keys(RunConfig, architecture=architecture)))
    known += [f"data.sources.N.{key}" for key in DataSource.model_fields]
    section, _, name = re.sub(r"\.\d+\.", ".N.", location).rpartition(".")
    siblings = {key.rpartition(".")[2]: key for key in known if key.rpartition(".")[0] == section}
    # A name that one other section has is more likely meant than one that only looks alike.
    same = [key for key in known if key.endswith(f".{name}")]
    if len(same) == 1:
        return f"did you mean {same[0]!r}?"
    near = difflib.get_close_matches(name, siblings, 1, cutoff=0.5)
    if near:
        return f"did you mean {siblings[near[0]]!r}?"
    elsewhere = difflib.get_close_matches(name, {key.rpartition(".")[2]: key for key in known}, 1, cutoff=0.6)
    for key in known:
        if elsewhere and key.endswith(f".{elsewhere[0]}"):
            return f"did you mean {key!r}?"
    return f"known here: {', '.join(siblings) if siblings else 'see configs/tiny.yaml'}"


def known_keys(model: type[BaseModel], prefix: str = "", architecture: str | None = None) -> Iterable[str]:
    """Every dotted key of a configuration class, sections included.

    Args:
        model: the class.
        prefix: what stands before each key.
        architecture: of the model, whose keys differ between architectures; None: those of all.
    """
    for name, field in model.model_fields.items():
        yield prefix + name
        for section in sections_of(field):
            if architecture is None or _is_of(section, architecture):
                yield from known_keys(section, f"{prefix}{name}.", architecture)


def _is_of(section: type[BaseModel], architecture: str) -> bool:
    """Whether a section has the keys of this architecture, or of any."""
    field = section.model_fields.get("architecture")
    return field is None or field.default == architecture
