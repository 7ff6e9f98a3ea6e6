from dataclasses import asdict
from typing import Annotated

import typer

from parallax.cli.output import print_json

_TIMEOUT_SECONDS = 9.0
_COMPILING_SECONDS = 120.0
"""On a GPU, for kernels that are compiled when they are first tried."""


def doctor(as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False) -> None:
    """Look at what this machine can train with; exit code 1: something needed is broken."""
    import textwrap

    from parallax.cli.doctor_checks.collectives import check_gloo
    from parallax.cli.doctor_checks.finding import run_checks
    from parallax.cli.doctor_checks.launchers import check_launchers
    from parallax.cli.doctor_checks.machine import check_attention, check_machine
    from parallax.cli.doctor_checks.surroundings import (
        check_compilers,
        check_folders,
        check_packages,
    )

    checks = [
        ("machine", check_machine),
        ("attention", check_attention),
        ("packages", check_packages),
        ("gloo", check_gloo),
        ("folders", check_folders),
        ("compilers", check_compilers),
        ("launchers", check_launchers),
    ]
    found = run_checks(checks, _TIMEOUT_SECONDS, {"attention": _COMPILING_SECONDS})
    broken = any(finding.state == "broken" for finding in found)
    if as_json:
        print_json({"healthy": not broken, "findings": [asdict(finding) for finding in found]})
    else:
        for finding in found:
            head = f"{finding.state:6}  {finding.name:22}"
            print("\n".join(textwrap.wrap(f"{head}{finding.text}", 80, subsequent_indent=" " * 30)))
    if broken:
        raise typer.Exit(1)
