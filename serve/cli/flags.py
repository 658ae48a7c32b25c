"""`penumbra flags`: shows and changes variant flags, through the admin API."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml
from rich.console import Console, RenderableType

from penumbra.deployments.config import strict_yaml
from penumbra.deployments.errors import ConfigInvalid
from penumbra.serve.cli import flag_views
from penumbra.serve.cli.admin_client import Misused, flag_path
from penumbra.serve.cli.options import (
    AdminUrl,
    AsJson,
    Config,
    LongConfig,
    Reason,
    admin_client,
    print_json,
)

app = typer.Typer(
    help="Who gets which variant: show, change, and see who changed what.", no_args_is_help=True
)

Model = Annotated[str, typer.Argument(help="The model's public name.")]
Tenant = Annotated[str | None, typer.Option("--tenant", help="The tenant to pin.")]
Key = Annotated[str | None, typer.Option("--key", help="The user or session id to pin.")]


@app.command("list")
def list_flags(as_json: AsJson = False, url: AdminUrl = None, config: Config = None) -> None:
    """Show the flags of all models."""
    with admin_client(url, config, as_json) as client:
        answer = client.get("/flags")
        _show(answer, as_json, flag_views.flags_table)


@app.command()
def show(
    model: Model, as_json: AsJson = False, url: AdminUrl = None, config: Config = None
) -> None:
    """Show one flag in full."""
    with admin_client(url, config, as_json) as client:
        _show(client.get(flag_path(model)), as_json, flag_views.flag_table)


@app.command("set")
def set_flag(  # noqa: PLR0913 - a command's options
    model: Model,
    reason: Reason,
    split: Annotated[
        list[str] | None,
        typer.Option("--split", help="VARIANT=PERCENT, repeatable: all shares at once."),
    ] = None,
    quarantine: Annotated[
        list[str] | None, typer.Option("--quarantine", help="Keep this slice on the baseline.")
    ] = None,
    release: Annotated[
        list[str] | None, typer.Option("--release", help="Take this slice out of quarantine.")
    ] = None,
    file: Annotated[
        Path | None, typer.Option("--file", "-f", help="A whole flag, as YAML or JSON.")
    ] = None,
    as_json: AsJson = False,
    url: AdminUrl = None,
    config: LongConfig = None,
) -> None:
    """Change the split, the quarantined slices, or the whole flag."""
    with admin_client(url, config, as_json) as client:
        if split and not (quarantine or release or file):
            body = {"split": _shares(split), "reason": reason}
            answer = client.change("POST", flag_path(model, "split"), body)
        elif split or quarantine or release or file:
            view = client.get(flag_path(model))
            flag = _read_flag(file) if file else view["flag"]
            if split:
                flag["split"] = _shares(split)
            rest = [name for name in flag.get("quarantined", []) if name not in (release or [])]
            flag["quarantined"] = list(dict.fromkeys([*rest, *(quarantine or [])]))
            body = {"flag": flag, "reason": reason}
            answer = client.change("PUT", flag_path(model), body, view["epoch"])
        else:
            raise Misused("nothing to set: give --split, --quarantine, --release or --file")
        _print_outcome(answer, as_json)


@app.command()
def kill(
    model: Model,
    reason: Reason,
    as_json: AsJson = False,
    url: AdminUrl = None,
    config: Config = None,
) -> None:
    """Send all traffic to the baseline, now."""
    _act(model, "kill", reason, as_json, url, config)


@app.command()
def unkill(
    model: Model,
    reason: Reason,
    as_json: AsJson = False,
    url: AdminUrl = None,
    config: Config = None,
) -> None:
    """Take the kill switch back."""
    _act(model, "unkill", reason, as_json, url, config)


@app.command()
def pin(  # noqa: PLR0913 - a command's options
    model: Model,
    variant: Annotated[str, typer.Argument(help="The variant to pin to.")],
    reason: Reason,
    tenant: Tenant = None,
    key: Key = None,
    as_json: AsJson = False,
    url: AdminUrl = None,
    config: Config = None,
) -> None:
    """Give one tenant, or one user or session, always the same variant."""
    with admin_client(url, config, as_json) as client:
        body = {**_subject(tenant, key), "variant": variant, "reason": reason}
        _print_outcome(client.change("POST", flag_path(model, "pin"), body), as_json)


@app.command()
def unpin(  # noqa: PLR0913 - a command's options
    model: Model,
    reason: Reason,
    tenant: Tenant = None,
    key: Key = None,
    as_json: AsJson = False,
    url: AdminUrl = None,
    config: Config = None,
) -> None:
    """Take a pin back."""
    with admin_client(url, config, as_json) as client:
        body = {**_subject(tenant, key), "reason": reason}
        _print_outcome(client.change("POST", flag_path(model, "unpin"), body), as_json)


@app.command()
def history(
    model: Annotated[str | None, typer.Argument(help="Only this model's flag.")] = None,
    after: Annotated[int | None, typer.Option("--after", help="From this epoch on.")] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", help="At most so many.")] = 20,
    as_json: AsJson = False,
    url: AdminUrl = None,
    config: Config = None,
) -> None:
    """Show who changed what, when and why."""
    with admin_client(url, config, as_json) as client:
        params = {"model": model, "after": after, "limit": limit}
        _show(client.get("/history", params), as_json, flag_views.history_table)


@app.command()
def gateways(as_json: AsJson = False, url: AdminUrl = None, config: Config = None) -> None:
    """Show which gateways are connected, and the epoch that each has in force."""
    with admin_client(url, config, as_json) as client:
        _show(client.get("/gateways"), as_json, flag_views.gateways_table)


@app.command("export")
def export_flags(
    model: Annotated[str | None, typer.Argument(help="Only this model's flag.")] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="A file; else standard output.")
    ] = None,
    url: AdminUrl = None,
    config: Config = None,
) -> None:
    """Write flags as flagd JSON, for any OpenFeature SDK."""
    with admin_client(url, config) as client:
        text = json.dumps(client.get("/flagd", {"model": model}), indent=2, ensure_ascii=False)
        if output is None:
            typer.echo(text)
        else:
            output.write_text(f"{text}\n", encoding="utf-8")


@app.command("import")
def import_flags(
    file: Annotated[Path, typer.Argument(help="A flagd document.")],
    reason: Reason,
    as_json: AsJson = False,
    url: AdminUrl = None,
    config: Config = None,
) -> None:
    """Replace the flags in a flagd document: all of them, or none."""
    with admin_client(url, config, as_json) as client:
        body = {"flagd": _read_flag(file), "reason": reason}
        _print_outcome(client.change("PUT", "/flagd", body), as_json)


def _act(
    model: str, action: str, reason: str, as_json: bool, url: str | None, config: Path | None
) -> None:
    with admin_client(url, config, as_json) as client:
        body = {"reason": reason}
        _print_outcome(client.change("POST", flag_path(model, action), body), as_json)


def _show(answer: Any, as_json: bool, view: Any) -> None:
    if as_json:
        print_json(answer)
        return
    table: RenderableType = view(answer)
    Console().print(table)


def _print_outcome(answer: Any, as_json: bool) -> None:
    if as_json:
        print_json(answer)
    else:
        typer.echo(flag_views.outcome_text(answer))


def _shares(texts: list[str]) -> dict[str, float]:
    shares: dict[str, float] = {}
    for text in texts:
        name, separator, percent = text.partition("=")
        if name in shares:
            raise Misused(f"--split: found {name} twice, wanted each variant once")
        try:
            shares[name] = float(percent.strip().removesuffix("%"))
        except ValueError:
            separator = ""
        if not separator or not name:
            raise Misused(f'--split: found "{text}", wanted VARIANT=PERCENT, such as int8=30')
    return shares


def _subject(tenant: str | None, key: str | None) -> dict[str, str]:
    if (tenant is None) == (key is None):
        raise Misused("wanted either --tenant or --key")
    return (
        {"kind": "tenant", "subject": tenant} if tenant else {"kind": "key", "subject": key or ""}
    )


def _read_flag(path: Path) -> dict[str, Any]:
    try:
        data = strict_yaml.parse(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError, ConfigInvalid) as error:
        raise Misused(f"{path}: {error}") from error
    if not isinstance(data, dict):
        raise Misused(f"{path}: wanted a mapping")
    return data
