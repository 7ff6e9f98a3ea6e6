import difflib
from collections.abc import Sequence
from fnmatch import fnmatchcase

from torch import nn

from parallax.errors import ConfigError

_NAMES_SHOWN = 3


def trainable_names(model: nn.Module, freeze: Sequence[str]) -> list[str]:
    """Names of the parameters that are left to train, in the model's order.

    A tied parameter has several names and is frozen under any of them: freezing the embedding freezes a
    head that is tied to it, and the other way round.

    Args:
        model: its parameters may be on the meta device.
        freeze: shell patterns over parameter names, upper and lower case told apart.

    Raises:
        ConfigError: a pattern matches nothing, or nothing is left to train.
    """
    names = _all_names(model)
    known = [name for together in names.values() for name in together]
    for pattern in freeze:
        if not any(fnmatchcase(name, pattern) for name in known):
            raise ConfigError(f"train.freeze: {pattern!r} matches no parameter; {_hint(pattern, known)}")
    left = [
        together[0]
        for together in names.values()
        if not any(fnmatchcase(name, pattern) for name in together for pattern in freeze)
    ]
    if not left:
        raise ConfigError(f"train.freeze={list(freeze)} leaves no parameter to train; freeze fewer")
    return left


def describe_frozen(model: nn.Module) -> str | None:
    """What is frozen and how much of the model that is; None where everything trains."""
    frozen = [(p, names) for p, names in _all_names(model).items() if not p.requires_grad]
    if not frozen:
        return None
    numbers = sum(parameter.numel() for parameter, _ in frozen)
    share = numbers / sum(parameter.numel() for parameter in model.parameters())
    shown = [names[0] + "".join(f" (also {other}, tied)" for other in names[1:]) for _, names in frozen]
    more = f" and {len(shown) - _NAMES_SHOWN} more" if len(shown) > _NAMES_SHOWN else ""
    return f"{share:.1%} of the parameters: {', '.join(shown[:_NAMES_SHOWN])}{more}"


def _all_names(model: nn.Module) -> dict[nn.Parameter, list[str]]:
    """Every parameter with its names, the one that checkpoints use first."""
    names: dict[nn.Parameter, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(parameter, []).append(name)
    return names


def _hint(pattern: str, known: Sequence[str]) -> str:
    """The names most like a pattern."""
    near = difflib.get_close_matches(pattern.lower(), known, _NAMES_SHOWN, cutoff=0.4)
    return f"near it: {', '.join(near or known[:_NAMES_SHOWN])}"
