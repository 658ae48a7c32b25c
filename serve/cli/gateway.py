"""`penumbra gateway`: runs one gateway process, and kills a model at gateways themselves."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import httpx
import typer

from penumbra.deployments.config.loader import load_in_force
from penumbra.deployments.config.spec import PenumbraSpec
from penumbra.deployments.errors import ConfigInvalid
from penumbra.router.addresses import join_host_port, local_host
from penumbra.router.gateway.emergency_routes import PATH
from penumbra.router.secret_values import SecretUnreadable, secret_of
from penumbra.serve.cli import up
from penumbra.serve.cli.admin_client import AdminError, Misused, NoAnswer, NotAllowed, actor
from penumbra.serve.cli.options import AsJson, print_json, told_errors
from penumbra.serve.errors import ServeError
from penumbra.serve.supervisor.folder import GATEWAY_TOKEN, TOKENS
from penumbra.serve.supervisor.state import STATE_FILE, read_running

_SECONDS = 5.0
_LOOK_SECONDS = 2.0

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.callback(invoke_without_command=True)
def gateway(
    context: typer.Context,
    file: up.File = Path("penumbra.yaml"),
    index: Annotated[
        int, typer.Option(min=0, help="Index of the process, below gateway.processes.")
    ] = 0,
) -> None:
    """Run one gateway process in the foreground, beside a control process elsewhere."""
    context.obj = file
    if context.invoked_subcommand is None:
        up.gateway(file, index)


@app.command()
def kill(  # noqa: PLR0913 - a command's options
    context: typer.Context,
    model: Annotated[str, typer.Argument(help="The model whose traffic goes to the baseline.")],
    reason: Annotated[str, typer.Option("--reason", "-m", help="Why; kept at the gateways.")],
    file: Annotated[Path | None, typer.Option("--file", "-f", help="The configuration.")] = None,
    url: Annotated[
        list[str] | None,
        typer.Option(help="Base URL of a gateway's internal port; may be given more than once."),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Also while a control process answers.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Send all traffic of a model to the baseline at the gateways themselves, in an emergency."""
    with told_errors(as_json):
        spec = _read(file or context.obj)
        if not force:
            _require_no_control(spec, model)
        outcomes = _kill_all(spec, url or [*_internal_urls(spec)], model, reason)
        if as_json:
            print_json({"gateways": outcomes})
        else:
            for outcome in outcomes:
                typer.echo(_line(outcome))
            typer.echo(_what_next(model))
        failed = [outcome for outcome in outcomes if "error" in outcome]
        if failed:
            text = f"{len(failed)} of {len(outcomes)} gateways were not reached: it goes on there"
            raise (NoAnswer if len(failed) == len(outcomes) else AdminError)(text)


def _read(file: Path) -> PenumbraSpec:
    try:
        return load_in_force(file)
    except ConfigInvalid as error:
        raise Misused(error.message) from error


def _require_no_control(spec: PenumbraSpec, model: str) -> None:
    for address in (spec.control_url, *spec.control.others):
        try:
            answer = httpx.get(
                f"{address.rstrip('/')}/ready", timeout=_LOOK_SECONDS, trust_env=False
            )
        except httpx.HTTPError:
            continue
        if answer.is_success:
            raise AdminError(
                f"the control process at {address} leads: use `penumbra flags kill {model}`, which"
                " reaches every gateway and is kept in the history; with --force the gateways"
                " are told all the same"
            )


def _internal_urls(spec: PenumbraSpec) -> Iterator[str]:
    """Base URLs of this machine's gateways: of those that run, else as configured."""
    try:
        state = read_running(spec.state_dir / STATE_FILE)
    except ServeError:
        host = local_host(spec.metrics.host)
        for index in range(spec.gateway.processes):
            yield f"http://{join_host_port(host, spec.gateway.internal_port + index)}"
        return
    for process in state.processes:
        if process.name.startswith("gateway-") and process.url:
            yield process.url


def _kill_all(spec: PenumbraSpec, urls: list[str], model: str, reason: str) -> list[dict[str, Any]]:
    headers = {"authorization": f"Bearer {_token(spec.state_dir)}"}
    body = {"model": model, "reason": reason, "actor": actor()}
    outcomes: list[dict[str, Any]] = []
    with httpx.Client(headers=headers, timeout=_SECONDS, trust_env=False) as client:
        for url in urls:
            try:
                answer = client.post(f"{url.rstrip('/')}{PATH}", json=body)
            except (httpx.HTTPError, httpx.InvalidURL) as error:
                outcomes.append({"url": url, "error": f"{type(error).__name__}: {error}"})
                continue
            outcomes.append({"url": url, **_outcome(answer)})
    return outcomes


def _outcome(answer: httpx.Response) -> dict[str, Any]:
    try:
        found = answer.json()
        return dict(found) if answer.is_success else {"error": found["error"]["message"]}
    except (ValueError, KeyError, TypeError):
        return {"error": f"it answered {answer.status_code}: is it the internal port of a gateway?"}


def _token(state_dir: Path) -> str:
    try:
        token = secret_of(os.environ, GATEWAY_TOKEN)
    except SecretUnreadable as error:
        raise Misused(str(error)) from error
    path = state_dir / TOKENS[GATEWAY_TOKEN]
    try:
        return token or path.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise NotAllowed(
            f"found neither {GATEWAY_TOKEN} nor a readable {path}, wanted the gateways' token"
        ) from error


def _line(outcome: dict[str, Any]) -> str:
    if "error" in outcome:
        return f"{outcome['url']}: {outcome['error']}"
    where = f"{outcome['gateway']} at {outcome['url']}"
    if outcome["by_flag"]:
        return f"{where}: its flag is killed already"
    kept = "" if outcome["kept"] else ", until that process ends: it could not be written down"
    return f"{where}: killed{kept}"


def _what_next(model: str) -> str:
    return (
        "It stays so when the control process is back, until `penumbra flags kill"
        f" {model}` takes it over; after that `penumbra flags unkill {model}` ends it."
    )
