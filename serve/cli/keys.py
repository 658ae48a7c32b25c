"""`penumbra keys`: makes API keys for applications. Only digests are ever stored."""

import hashlib
import json
import re
import secrets
from typing import Annotated

import typer

app = typer.Typer(help="API keys: make one for a tenant.", no_args_is_help=True)

_TENANT = re.compile(r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")
_RANDOM_BYTES = 32


@app.callback()
def keys() -> None:
    """Make API keys; only their digests are ever stored."""


@app.command()
def new(
    tenant: Annotated[str, typer.Argument(help="The tenant that the key is for.")],
    may_pin: Annotated[
        bool, typer.Option("--may-pin", help="Let it choose its variant by header.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Make a key. It is shown once; put the entry below it under `keys:` in penumbra.yaml."""
    if not _TENANT.match(tenant):
        typer.echo(
            f'error: TENANT: found "{tenant}", wanted letters, digits, ".", "_" and "-"', err=True
        )
        raise typer.Exit(1)
    key = f"pk-{secrets.token_urlsafe(_RANDOM_BYTES)}"
    digest = hashlib.sha256(key.encode()).hexdigest()
    if as_json:
        entry = {"tenant": tenant, "sha256": digest, "may_pin": may_pin}
        typer.echo(json.dumps({"key": key, "entry": entry}))
        return
    typer.echo(f"key, shown this once:\n\n  {key}\n\nfor penumbra.yaml:\n\nkeys:")
    typer.echo(f"  - tenant: {tenant}\n    sha256: {digest}")
    if may_pin:
        typer.echo("    may_pin: true")
