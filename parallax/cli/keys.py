from typing import Annotated

import typer


def keys(
    search: Annotated[str, typer.Argument(metavar="TEXT", help="Only keys that contain this.")] = "",
    markdown: Annotated[bool, typer.Option("--markdown", help="Print the page docs/CONFIGURATION.md.")] = False,
) -> None:
    """List every configuration key with its default and meaning."""
    from parallax.config.reference import list_keys, reference_page
    from parallax.errors import ConfigError

    if markdown:
        print(reference_page(), end="")
        return
    found = [entry for entry in list_keys() if search in entry.key]
    if not found:
        raise ConfigError(f"no key contains {search!r}; parallax keys lists all")
    for entry in found:
        print(f"{entry.key}: {entry.default}  ({entry.kind})\n    {entry.meaning}")
