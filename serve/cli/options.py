"""Options and error handling that all commands on the admin API share."""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from penumbra.serve.cli.admin_client import (
    URL_VARIABLE,
    AdminClient,
    AdminError,
    connect,
)

Reason = Annotated[str, typer.Option("--reason", "-m", help="Why; kept in the history.")]
AdminUrl = Annotated[
    str | None,
    typer.Option(
        "--url", "--admin-url", help=f"Base URL of the admin API; without -f also {URL_VARIABLE}."
    ),
]
_CONFIG_HELP = "The installation's penumbra.yaml: says where it is, and where its tokens are."
Config = Annotated[Path | None, typer.Option("--config", "-f", help=_CONFIG_HELP)]
LongConfig = Annotated[Path | None, typer.Option("--config", help=_CONFIG_HELP)]
"""`Config` of a command whose `-f` is another file."""
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, errors included.")]


@contextlib.contextmanager
def admin_client(
    url: str | None, config: Path | None = None, as_json: bool = False
) -> Iterator[AdminClient]:
    """A client for one command; an error is one line on standard error, and its exit status.

    Args:
        url: Base URL of the admin API.
        config: The installation's configuration.
        as_json: Whether an error is JSON on standard output instead.
    """
    with told_errors(as_json), contextlib.closing(connect(url, config)) as client:
        yield client


@contextlib.contextmanager
def told_errors(as_json: bool = False) -> Iterator[None]:
    """Tell an error of this block, and end the command with its exit status."""
    try:
        yield
    except (AdminError, OSError) as error:
        # An OSError is about a file that the command was given.
        known = error if isinstance(error, AdminError) else AdminError(str(error))
        tell_error(known, as_json)
        raise typer.Exit(known.exit_status) from error


def tell_error(error: AdminError, as_json: bool) -> None:
    """Print an error for a person on standard error, or for a program on standard output."""
    if as_json:
        body = {"message": str(error), "code": error.code, "exit_status": error.exit_status}
        print_json({"error": body})
    else:
        Console(stderr=True, soft_wrap=True).print(f"error: {error}", style="red", markup=False)


def warn(text: str) -> None:
    """Print on standard error what a person should know before it happens."""
    Console(stderr=True, soft_wrap=True).print(text, style="yellow", markup=False, highlight=False)


def print_json(answer: Any) -> None:
    """Print an answer of the admin API as JSON."""
    typer.echo(json.dumps(answer, indent=2, ensure_ascii=False))
