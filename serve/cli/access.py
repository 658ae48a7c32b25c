"""`penumbra access`: people and tools that may use the admin API, each with tokens of its own."""

import re
from typing import Annotated, Any, Literal
from urllib.parse import quote

import typer
from rich.console import Console
from rich.table import Table

from penumbra.serve.cli.admin_client import Misused
from penumbra.serve.cli.options import AdminUrl, AsJson, Config, admin_client, print_json

app = typer.Typer(
    help="Who may use the admin API: add, list, rotate, revoke.", no_args_is_help=True
)

Name = Annotated[str, typer.Argument(help="Name of the person or tool; the history shows it.")]
Why = Annotated[str | None, typer.Option("--reason", "-m", help="Why; kept in the history.")]

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
_DURATION = re.compile(r"^(\d{1,9})([smhdw])$")


@app.command()
def add(  # noqa: PLR0913 - a command's options
    name: Name,
    role: Annotated[
        Literal["viewer", "operator", "admin"], typer.Option("--role", help="What it may do.")
    ],
    expires: Annotated[
        str | None,
        typer.Option("--expires", help="Validity of its token, as 90d or 12h; else no end."),
    ] = None,
    reason: Why = None,
    as_json: AsJson = False,
    url: AdminUrl = None,
    config: Config = None,
) -> None:
    """Add an identity, and print its token, this once."""
    with admin_client(url, config, as_json) as client:
        body = {
            "name": name,
            "role": role,
            "expires_seconds": _seconds("--expires", expires),
            "reason": reason or f"{name} may be {role}",
        }
        _print_token(client.change("POST", "/access", body), as_json)


@app.command("list")
def list_identities(as_json: AsJson = False, url: AdminUrl = None, config: Config = None) -> None:
    """Show all identities, and until when their tokens are valid."""
    with admin_client(url, config, as_json) as client:
        answer = client.get("/access")
        if as_json:
            print_json(answer)
            return
        if answer["problem"]:
            typer.echo(f"no identity is let in: {answer['problem']}", err=True)
        Console().print(_table(answer["identities"]))


@app.command()
def rotate(  # noqa: PLR0913 - a command's options
    name: Name,
    grace: Annotated[
        str, typer.Option("--grace", help="How long the token of before stays valid; 0s: not.")
    ] = "24h",
    expires: Annotated[
        str | None,
        typer.Option("--expires", help="Validity of the new one; else as the one of before."),
    ] = None,
    reason: Why = None,
    as_json: AsJson = False,
    url: AdminUrl = None,
    config: Config = None,
) -> None:
    """Give an identity a new token, and print it, this once."""
    with admin_client(url, config, as_json) as client:
        body = {
            "grace_seconds": _seconds("--grace", grace),
            "expires_seconds": _seconds("--expires", expires),
            "reason": reason or f"another token for {name}",
        }
        _print_token(client.change("POST", f"{_path(name)}/rotate", body), as_json)


@app.command()
def revoke(
    name: Name,
    reason: Why = None,
    as_json: AsJson = False,
    url: AdminUrl = None,
    config: Config = None,
) -> None:
    """End all tokens of an identity, now."""
    with admin_client(url, config, as_json) as client:
        answer = client.delete(_path(name), {"reason": reason or f"{name} may no more"})
        if as_json:
            print_json(answer)
        else:
            typer.echo(f"{answer['name']} ({answer['role']}) is revoked")


def _path(name: str) -> str:
    return f"/access/{quote(name, safe='')}"


def _seconds(option: str, text: str | None) -> int | None:
    if text is None:
        return None
    found = _DURATION.match(text)
    if found is None:
        raise Misused(f'{option}: found "{text}", wanted a number with s, m, h, d or w: 90d')
    return int(found[1]) * _SECONDS[found[2]]


def _print_token(answer: Any, as_json: bool) -> None:
    if as_json:
        print_json(answer)
        return
    newest, *rest = answer["tokens"]
    typer.echo(f"token of {answer['name']} ({answer['role']}), shown this once:\n")
    typer.echo(f"  {answer['token']}\n")
    typer.echo(f"valid {_until(newest)}")
    for token in rest:
        typer.echo(f"the one of before, {token['id']}, is valid {_until(token)}")
    typer.echo("use it: PENUMBRA_TOKEN, or PENUMBRA_TOKEN_FILE with the name of a file")


def _table(identities: list[Any]) -> Table:
    table = Table(box=None)
    for column in ("name", "role", "token", "since", "valid"):
        table.add_column(column, overflow="fold")
    for each in identities:
        for number, token in enumerate(each["tokens"]):
            who = (each["name"], each["role"]) if number == 0 else ("", "")
            since = token["since"][:16].replace("T", " ")
            table.add_row(*who, token["id"], since, _until(token))
    return table


def _until(token: Any) -> str:
    if token["until"] is None:
        return "until it is revoked"
    until = token["until"][:16].replace("T", " ")
    return f"until {until} UTC" if token["is_valid"] else f"no more, since {until} UTC"
