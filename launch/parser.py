import argparse
from typing import NoReturn

from parallax.errors import ConfigError


class Parser(argparse.ArgumentParser):
    """Reports a mistake as every other one is reported, in one line."""

    def error(self, message: str) -> NoReturn:
        """Raises a ConfigError."""
        raise ConfigError(f"{message}; see: {self.prog} --help")
