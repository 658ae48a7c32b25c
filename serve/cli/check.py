"""`penumbra check`: says what stands in the way of a configuration, and starts nothing."""

import os
from pathlib import Path
from typing import Annotated

import typer

from penumbra.serve.cli.options import print_json
from penumbra.serve.supervisor.findings import find_all

EXIT_PROBLEMS = 1


def check(
    file: Annotated[Path, typer.Option("--file", "-f", help="The configuration.")] = Path(
        "penumbra.yaml"
    ),
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Look at a configuration, this machine and the store: exit status 1 if anything is wrong.

    Ports, packages, cores, model folders, secrets, the store, and flags stored there that name a
    variant or slice that the file does not have. Nothing is started or changed.
    """
    found = find_all(file, os.environ)
    if as_json:
        print_json({"problems": list(found.problems), "notes": list(found.notes)})
    else:
        for problem in found.problems:
            typer.echo(problem)
        for note in found.notes:
            typer.echo(f"note: {note}")
        count = len(found.problems)
        typer.echo(f"{file}: {f'{count} problems' if count else 'nothing stands in the way'}.")
    if found.problems:
        raise typer.Exit(EXIT_PROBLEMS)
