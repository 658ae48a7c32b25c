"""`penumbra apply`: brings what an installation serves to what a file proposes, while it runs."""

import contextlib
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

import httpx
import typer

from penumbra.deployments.config.loader import load
from penumbra.deployments.config.local_settings import local_settings
from penumbra.deployments.config.spec import PenumbraSpec
from penumbra.deployments.errors import ConfigInvalid
from penumbra.router.link.link_tls import verification
from penumbra.router.settings import ClientTlsSettings
from penumbra.serve.cli.admin_client import (
    AdminClient,
    AdminError,
    Misused,
    actor,
    address_of,
    tls_of,
    token_of,
)
from penumbra.serve.cli.options import AdminUrl, AsJson, print_json, told_errors
from penumbra.serve.cli.plan_view import hurting, is_empty, plan_lines

_PATH = "/configuration"
_ARRIVAL_SECONDS = 30.0
_POLL_SECONDS = 0.25

File = Annotated[Path, typer.Option("--file", "-f", help="The configuration that is proposed.")]


def apply(
    file: File = Path("penumbra.yaml"),
    reason: Annotated[
        str, typer.Option("--reason", "-m", help="Why; kept in the history. By default the file.")
    ] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show the plan.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask before what hurts.")] = False,
    as_json: AsJson = False,
    admin_url: AdminUrl = None,
) -> None:
    """Put a file's models, variants, slices and keys into force, while everything runs."""
    with told_errors(as_json):
        spec = _read(file)
        proposal = {"reason": reason.strip() or f"penumbra apply -f {file.name}", **shared(spec)}
        with contextlib.closing(connect(spec, admin_url)) as client:
            _run(client, proposal, is_dry=dry_run, is_agreed=yes, as_json=as_json)


def shared(spec: PenumbraSpec) -> dict[str, Any]:
    """The body of a proposal: what all machines share, and the rest of a file to compare."""
    body: dict[str, Any] = {
        "models": {
            name: model.model_dump(mode="json", exclude_defaults=True)
            for name, model in spec.models.items()
        },
        "local": local_settings(spec),
    }
    if "keys" in spec.model_fields_set:  # a file without the section says nothing of keys
        body["keys"] = [key.model_dump(mode="json", exclude_defaults=True) for key in spec.keys]
    return body


def connect(spec: PenumbraSpec, url: str | None = None) -> AdminClient:
    """A client for the control process of a configuration's installation.

    Args:
        spec: The configuration.
        url: Base URL of the admin API; None is the control process that leads, of those that the
            installation and the file name.

    Raises:
        AdminError: Its token is not known, or files for https are no use.
    """
    try:
        tls = tls_of(spec, spec.state_dir)
        return AdminClient(url or _leader(spec, tls), token_of(spec.state_dir), actor(), tls)
    except ValueError as error:
        raise Misused(str(error)) from error


def plan_of(client: AdminClient, proposal: Mapping[str, Any]) -> Any:
    """Have a proposal planned; nothing is changed."""
    return client.change("PUT", _PATH, {**proposal, "dry_run": True})


def _run(
    client: AdminClient,
    proposal: Mapping[str, Any],
    *,
    is_dry: bool,
    is_agreed: bool,
    as_json: bool,
) -> None:
    plan = plan_of(client, proposal)
    if not as_json:
        _print(plan_lines(plan))
    if is_dry:
        if as_json:
            print_json(plan)
        return
    answer = plan
    if not is_empty(plan):
        _require_agreement(plan, is_agreed=is_agreed)
        answer = client.change("PUT", _PATH, {**proposal, "expected_epoch": plan["epoch"]})
    # Also if nothing is to be changed: an earlier run may not have reached every gateway.
    reached = await_gateways(
        client, answer["epoch"], answer["gateways"]["connected"], has_keys="keys" in proposal
    )
    is_everywhere = reached["acknowledged"] == reached["connected"]
    if not as_json:
        _print([_outcome(answer["epoch"], reached)])
    elif is_everywhere:
        print_json(answer | {"gateways": reached})
    if not is_everywhere:
        raise AdminError(
            "not every gateway has it: see `penumbra flags gateways`; a revoked key may still be"
            " taken there"
        )


def _require_agreement(plan: Mapping[str, Any], *, is_agreed: bool) -> None:
    count = len(hurting(plan))
    if not count or is_agreed:
        return
    if not sys.stdin.isatty():
        raise AdminError(
            f"{count} of these steps hurt (!): give --yes to apply them without being asked;"
            " nothing was changed"
        )
    if not typer.confirm(f"{count} of these steps hurt (!). Apply all of it?", err=True):
        raise AdminError("nothing was changed")


def await_gateways(
    client: AdminClient,
    epoch: int,
    least: int,
    *,
    has_keys: bool,
    sleep: Callable[[float], None] = time.sleep,
) -> dict[str, int]:
    """Wait until all gateways have an epoch, for half a minute at most.

    Args:
        client: Asks the control process.
        epoch: The epoch.
        least: Gateways that were connected when it was made: one that is gone may serve on.
        has_keys: Whether only gateways count that take keys from the control process.
        sleep: Waits between two looks.
    """
    deadline = time.monotonic() + _ARRIVAL_SECONDS
    while True:
        gateways = client.get("/gateways")["gateways"]
        wanted = max(least, len(gateways))
        has_it = sum(
            gateway["epoch"] >= epoch and (gateway["takes_keys"] or not has_keys)
            for gateway in gateways
        )
        if has_it == wanted or time.monotonic() >= deadline:
            return {"connected": wanted, "acknowledged": has_it}
        sleep(_POLL_SECONDS)


def _outcome(epoch: int, reached: Mapping[str, int]) -> str:
    if not reached["connected"]:
        return f"Epoch {epoch} is durable; no gateway is connected, each gets it when it connects."
    return (
        f"Epoch {epoch} is in force: acknowledged {reached['acknowledged']}/{reached['connected']}."
    )


def _read(file: Path) -> PenumbraSpec:
    try:
        return load(file)
    except ConfigInvalid as error:
        raise AdminError(error.message) from error


def _leader(spec: PenumbraSpec, tls: ClientTlsSettings) -> str:
    """Base URL of the control process that leads; the first one known if none says so."""
    urls = [address_of(spec), *spec.control.others]
    for url in urls if len(urls) > 1 else ():
        with contextlib.suppress(httpx.HTTPError):
            verify = verification(url, tls)
            ready = f"{url.rstrip('/')}/ready"
            if httpx.get(ready, timeout=2.0, trust_env=False, verify=verify).is_success:
                return url
    return urls[0]


def _print(lines: list[str]) -> None:
    for line in lines:
        typer.echo(line)
