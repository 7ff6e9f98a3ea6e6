import re

from parallax.errors import ConfigError

_TIME = re.compile(r"(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?")
_MEMORY = re.compile(r"\d+[KMGT]?")


def parse_time(text: str) -> int:
    """Seconds of a time limit in one of Slurm's forms.

    Slurm reads M, M:S, H:M:S, D-H, D-H:M and D-H:M:S; 24:00 is 24 minutes.

    Raises:
        ConfigError: it is none of them, or nothing.
    """
    match = _TIME.fullmatch(text.strip())
    if match is None:
        raise ConfigError(f"--time {text}: expected minutes, H:MM:SS or D-HH:MM:SS, for example 4:00:00")
    days, *given = match.groups()
    parts = [int(part) for part in given if part is not None]
    if days is not None:
        hours, minutes, seconds = (*parts, 0, 0)[:3]
    elif len(parts) == 3:
        hours, minutes, seconds = parts
    else:
        hours, (minutes, seconds) = 0, (*parts, 0)[:2]
    total = ((int(days or 0) * 24 + hours) * 60 + minutes) * 60 + seconds
    if total == 0:
        raise ConfigError(f"--time {text}: expected more than no time, for example 4:00:00")
    return total


def format_time(seconds: int) -> str:
    """The form that cannot be misread: H:MM:SS, or D-HH:MM:SS."""
    minutes, second = divmod(seconds, 60)
    hours, minute = divmod(minutes, 60)
    days, hour = divmod(hours, 24)
    return (f"{days}-" if days else "") + f"{hour:02}:{minute:02}:{second:02}"


def check_memory(text: str) -> str:
    """Memory of a node as Slurm writes it.

    Raises:
        ConfigError: it is not.
    """
    if _MEMORY.fullmatch(text) is None:
        raise ConfigError(f"--mem {text}: expected megabytes, or a number with K, M, G or T, for example 64G")
    return text
