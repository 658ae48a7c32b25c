"""`penumbra rollout`: begins, follows, stops and explains rollouts, through the admin API."""

import sys
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import typer
from rich.console import Console, RenderableType

from penumbra.deployments.config.rollout_loader import load_rollout
from penumbra.deployments.errors import ConfigInvalid
from penumbra.serve.cli import rollout_views
from penumbra.serve.cli.admin_client import AdminClient, AdminError, Misused
from penumbra.serve.cli.flag_views import outcome_text
from penumbra.serve.cli.options import (
    AdminUrl,
    AsJson,
    Config,
    LongConfig,
    Reason,
    admin_client,
    print_json,
    warn,
)
from penumbra.serve.cli.rollout_explain import explanation
from penumbra.serve.cli.rollout_watch import Ending, follow, known_ends, screen
from penumbra.serve.cli.shares_by_hand import shares_by_hand

app = typer.Typer(
    help="Staged changes to a candidate: begin, watch, stop, and see why.", no_args_is_help=True
)

Model = Annotated[str, typer.Argument(help="The model's public name.")]
Candidate = Annotated[str, typer.Argument(help="The variant under test.")]


@app.command()
def apply(
    file: Annotated[Path, typer.Option("--file", "-f", help="The rollout, as YAML.")],
    reason: Reason,
    as_json: AsJson = False,
    url: AdminUrl = None,
    config: LongConfig = None,
) -> None:
    """Begin a rollout, or begin it anew with another spec."""
    with admin_client(url, config, as_json) as client:
        try:
            spec = load_rollout(file)
        except ConfigInvalid as error:
            raise Misused(error.message) from error
        for text in shares_by_hand(client, spec):
            warn(text)
        body = {"spec": spec.model_dump(mode="json"), "reason": reason}
        _print_outcome(client.change("PUT", "/rollouts", body), as_json)


@app.command()
def status(
    model: Annotated[str | None, typer.Argument(help="Only of this model.")] = None,
    candidate: Annotated[str | None, typer.Argument(help="One rollout in full.")] = None,
    as_json: AsJson = False,
    url: AdminUrl = None,
    config: Config = None,
) -> None:
    """Show all rollouts, or one in full: stages, evidence by slice, and what it waits for."""
    with admin_client(url, config, as_json) as client:
        if model is not None and candidate is not None:
            _show(_view(client, model, candidate), as_json, rollout_views.rollout_view)
            return
        answer = client.get("/rollouts")
        found = [rollout for rollout in answer["rollouts"] if model in (None, rollout["model"])]
        if model is not None and not found:
            known = ", ".join(dict.fromkeys(view["model"] for view in answer["rollouts"])) or "none"
            raise AdminError(f"found no rollout of {model}, wanted one of: {known}")
        _show({**answer, "rollouts": found}, as_json, rollout_views.rollouts_table)


@app.command()
def watch(  # noqa: PLR0913 - a command's options
    model: Model,
    candidate: Candidate,
    until: Annotated[
        str, typer.Option("--until", help="A stage of it, `promoted`, or `rolled_back`.")
    ] = "promoted",
    timeout: Annotated[
        float | None, typer.Option("--timeout", min=0, help="Seconds after which to stop.")
    ] = None,
    as_json: AsJson = False,
    url: AdminUrl = None,
    config: Config = None,
) -> None:
    """Follow a rollout: exit status 0 there, 3 rolled back or ended, 6 not in time."""
    with admin_client(url, config, as_json) as client:
        first = _view(client, model, candidate)
        if until.removesuffix("%").strip() not in known_ends(first):
            raise Misused(f'--until: found "{until}", wanted one of {", ".join(known_ends(first))}')
        with screen(Console(), as_json=as_json) as show:
            end = follow(lambda: _view(client, model, candidate), show, until, timeout)
    if end is not Ending.REACHED:
        raise typer.Exit(int(end))


_ACTIONS = {
    "promote": "One stage on without waiting for the stage's time; every other gate must be open.",
    "hold": "Stay at this stage. The guard goes on, and still takes the candidate out.",
    "resume": "Go on after a hold.",
    "rollback": "All traffic back to the baseline, now.",
    "rearm": "Begin again in shadow, with new evidence, after a rollback.",
    "end": "Stop watching: no mirroring, no live traffic by this rollout.",
}


def _add_action(action: str, meaning: str) -> None:
    @app.command(action, help=meaning)
    def act(
        model: Model,
        candidate: Candidate,
        reason: Reason,
        as_json: AsJson = False,
        url: AdminUrl = None,
        config: Config = None,
    ) -> None:
        with admin_client(url, config, as_json) as client:
            if action == "rollback" and not as_json and sys.stderr.isatty():
                warn("waiting until every gateway has it, at most one lease ...")
            path = f"{_path(candidate, action)}?model={quote(model, safe='')}"
            _print_outcome(client.change("POST", path, {"reason": reason}), as_json)


for _name, _meaning in _ACTIONS.items():
    _add_action(_name, _meaning)


@app.command()
def graduate(  # noqa: PLR0913 - a command's options
    model: Model,
    candidate: Candidate,
    reason: Reason,
    keep_days: Annotated[
        float, typer.Option("--keep-days", min=0, help="Days for which the old baseline stays.")
    ] = 7.0,
    accept_unproven: Annotated[
        bool,
        typer.Option("--accept-unproven", help="Also requests for which it was never proven."),
    ] = False,
    as_json: AsJson = False,
    url: AdminUrl = None,
    config: Config = None,
) -> None:
    """Make a promoted candidate the baseline; `rollback` goes back to the old one."""
    with admin_client(url, config, as_json) as client:
        path = f"{_path(candidate, 'graduate')}?model={quote(model, safe='')}"
        terms = {"keep_days": keep_days, "accept_unproven": accept_unproven}
        _print_outcome(client.change("POST", path, {"reason": reason, **terms}), as_json)
        if not as_json:
            warn(
                f"write `baseline: {candidate}` into the file of {model}, and leave the old one in"
            )


@app.command()
def explain(
    model: Model,
    candidate: Candidate,
    as_json: AsJson = False,
    url: AdminUrl = None,
    config: Config = None,
) -> None:
    """Show why the guard acted last, and recompute it from what is stored."""
    with admin_client(url, config, as_json) as client:
        answer = client.get(_path(candidate, "explain"), {"model": model})
        _show(answer, as_json, explanation)


def _view(client: AdminClient, model: str, candidate: str) -> Any:
    return client.get(_path(candidate), {"model": model})


def _path(candidate: str, action: str = "") -> str:
    return f"/rollouts/{quote(candidate, safe='')}{'/' if action else ''}{action}"


def _show(answer: Any, as_json: bool, view: Any) -> None:
    if as_json:
        print_json(answer)
        return
    renderable: RenderableType = view(answer)
    Console().print(renderable)


def _print_outcome(answer: Any, as_json: bool) -> None:
    if as_json:
        print_json(answer)
        return
    done, rollout = outcome_text(answer), answer["rollout"]
    if not answer["changed"]:
        typer.echo(done)
        return
    stage = rollout_views.stage_name(rollout["stage"])
    held = f" (held: {rollout['held_cause']})" if rollout["is_held"] else ""
    typer.echo(f"{done}: {rollout['candidate']} of {rollout['model']} is {stage}{held}")
