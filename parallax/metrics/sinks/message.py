import re

from parallax.errors import ParallaxError

_LONGEST = 240


def one_line(error: BaseException) -> str:
    """An error's type and message on one line, shortened if very long, without passwords; our own as it is."""
    text = without_password(" ".join(str(error).split()))
    if isinstance(error, ParallaxError):
        return text
    shown = text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."
    return f"{type(error).__name__}: {shown}" if shown else type(error).__name__


def without_password(text: str) -> str:
    """The text without the user and password that URLs in it may hold, for messages and files."""
    return re.sub(r"//[^/@\s]*@", "//", text)
