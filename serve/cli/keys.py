"""`penumbra keys`: makes, lists and revokes API keys of applications. Only digests are stored."""

import hashlib
import json
import re
import secrets
from typing import Annotated

import typer
from rich.console import Console

from penumbra.router.flags.tenant_keys import KEY_ID_CHARS
from penumbra.serve.cli.admin_client import AdminError
from penumbra.serve.cli.apply import await_gateways
from penumbra.serve.cli.flag_views import outcome_text
from penumbra.serve.cli.options import (
    AdminUrl,
    AsJson,
    Config,
    Reason,
    admin_client,
    print_json,
    warn,
)
from penumbra.serve.cli.rollout_views import grid

app = typer.Typer(help="API keys: make, list and revoke them.", no_args_is_help=True)

_TENANT = re.compile(r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")
_RANDOM_BYTES = 32
_HEX = re.compile(r"^[0-9A-Fa-f]+$")
_DIGEST_CHARS = 64


@app.callback()
def keys() -> None:
    """Make, list and revoke API keys; only their digests are ever stored."""


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


@app.command("list")
def list_keys(as_json: AsJson = False, url: AdminUrl = None, config: Config = None) -> None:
    """List the keys in force, by the first characters of their digests."""
    with admin_client(url, config, as_json) as client:
        found = client.get("/configuration")["keys"]
    if as_json:
        print_json({"keys": found})
    elif found is None:
        typer.echo("the store holds no keys: each gateway has those of its own file")
    else:
        table = grid("key", "tenant", "may pin")
        for key in found:
            table.add_row(key["key_id"], key["tenant"], "yes" if key["may_pin"] else "no")
        Console().print(table)


@app.command()
def revoke(
    key: Annotated[str, typer.Argument(help="The key, its SHA-256, or its name in `keys list`.")],
    reason: Reason,
    as_json: AsJson = False,
    url: AdminUrl = None,
    config: Config = None,
) -> None:
    """Revoke a key at every gateway, whatever else is to be changed: for one that has leaked."""
    with admin_client(url, config, as_json) as client:
        path = f"/configuration/keys/{_name_of(key)}/revoke"
        answer = client.change("POST", path, {"reason": reason})
        least = answer["gateways"]["connected"]
        reached = await_gateways(client, answer["epoch"], least, has_keys=True)
        is_everywhere = reached["acknowledged"] == reached["connected"]
        if not as_json:
            typer.echo(outcome_text({**answer, "changed": True, "gateways": reached}))
            warn("take it out of the files of all machines, too: `penumbra apply` puts it back")
        elif is_everywhere:
            print_json(answer | {"gateways": reached})
        if not is_everywhere:
            raise AdminError(
                "not every gateway has it: see `penumbra flags gateways`; the key may still be"
                " taken there"
            )


def _name_of(key: str) -> str:
    """Name of a key that is given by its name, its SHA-256, or itself."""
    is_digest = len(key) in (KEY_ID_CHARS, _DIGEST_CHARS) and _HEX.match(key)
    return (key.lower() if is_digest else hashlib.sha256(key.encode()).hexdigest())[:KEY_ID_CHARS]
