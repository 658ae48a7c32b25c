"""Options and error handling that all commands on the admin API share."""

import contextlib
import json
from collections.abc import Iterator
from typing import Annotated, Any

import typer
from rich.console import Console

from penumbra.serve.cli.admin_client import URL_VARIABLE, AdminClient, AdminError, connect

Reason = Annotated[str, typer.Option("--reason", "-m", help="Why; kept in the history.")]
AdminUrl = Annotated[
    str | None, typer.Option("--admin-url", envvar=URL_VARIABLE, help="Base URL of the admin API.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@contextlib.contextmanager
def admin_client(url: str | None) -> Iterator[AdminClient]:
    """A client for one command; an error is one line on standard error and exit status 1."""
    try:
        with contextlib.closing(connect(url)) as client:
            yield client
    except (AdminError, OSError) as error:
        Console(stderr=True, soft_wrap=True).print(f"error: {error}", style="red", markup=False)
        raise typer.Exit(1) from error


def print_json(answer: Any) -> None:
    """Print an answer of the admin API as JSON."""
    typer.echo(json.dumps(answer, indent=2, ensure_ascii=False))
