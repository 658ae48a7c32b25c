"""`penumbra store`: verifies, repairs, copies and exports the store of the control process."""

import contextlib
import getpass
import json
import os
import socket
import sys
import time
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from penumbra.deployments.config.spec import PenumbraSpec
from penumbra.deployments.config.store_url import load_with_store
from penumbra.deployments.errors import Conflict, DeploymentsError, StoreUnavailable
from penumbra.deployments.store import copies
from penumbra.deployments.store.store import Store
from penumbra.deployments.store.verify import Verified, repair, verify
from penumbra.router.addresses import local_host

app = typer.Typer(
    help="The store of flags, rollouts and evidence: verify, repair, copy, export.",
    no_args_is_help=True,
)

File = Annotated[Path, typer.Option("--file", "-f", help="The configuration.")]
_FILE = Path("penumbra.yaml")
_CONNECT_SECONDS = 1.0
_WAIT_SECONDS = 6.0
"""Longer than the right to write of any process that is gone (`fence_times`)."""
_REPAIR_SECONDS = 600.0
_FOR_GOOD_SECONDS = 1e9


@app.command("verify")
def verify_store(
    file: File = _FILE,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Read every row, and say what cannot be read or applied; exit status 1 if anything is so."""
    with _told_errors(), _opened(file) as (store, _spec):
        found = verify(store, _progress)
    _show(found, as_json)
    if not found.is_whole:
        raise typer.Exit(1)


@app.command("repair")
def repair_store(file: File = _FILE) -> None:
    """Move rows that cannot be read to the table `set_aside`, and kill the flags of their models.

    Nothing is deleted. The control process has to be stopped. Look at the models that were killed,
    then `penumbra flags unkill` them.
    """
    with _told_errors(), _opened(file) as (store, spec):
        _require_stopped(spec)
        found = verify(store, _progress)
        if found.is_whole:
            typer.echo("Nothing to repair: every row can be read.")
            return
        _show(found, as_json=False)
        with _leading(store):
            moved = repair(store, found, getpass.getuser(), datetime.now(UTC))
        again = verify(store, _progress)
    killed = ", ".join(name for name, flag in again.state.flags.items() if flag.killed) or "none"
    typer.echo(f"Set aside: {moved} rows. Killed models: {killed}.")
    if not again.is_whole:
        raise typer.Exit(1)


@app.command()
def backup(
    copy: Annotated[Path, typer.Argument(help="File of the copy; must not exist.")],
    file: File = _FILE,
) -> None:
    """Copy a SQLite store, also while the control process runs; the copy is checked."""
    with _told_errors():
        source = copies.sqlite_file(load_with_store(file, os.environ).store_url)
        copies.backup(source, copy, _copy_progress)
    typer.echo(f"{copy}: {copy.stat().st_size} bytes, checked.")


@app.command()
def restore(
    copy: Annotated[Path, typer.Argument(help="A file that `penumbra store backup` made.")],
    file: File = _FILE,
) -> None:
    """Put a copy in the place of the store, and keep the present one beside it.

    The control process has to be stopped. All that was changed after the copy is forgotten.
    """
    with _told_errors():
        spec = load_with_store(file, os.environ)
        target = copies.sqlite_file(spec.store_url)
        _require_stopped(spec)
        copies.require_store(copy)
        if target.exists():
            _hold_for_good(spec.store_url)
        kept = target.with_name(f"{target.name}.before-{datetime.now(UTC):%Y%m%dT%H%M%SZ}")
        copies.restore(copy, target, kept)
    typer.echo(f"{target} is the copy now; the store before is {kept}, if there was one.")
    typer.echo(
        "Start the control process, and look at `penumbra status` and `penumbra flags list`."
    )


@app.command()
def export(file: File = _FILE) -> None:
    """Write all rows to standard output as lines of JSON."""
    with _told_errors(), _opened(file) as (store, _spec):
        for number, line in enumerate(copies.export(store), start=1):
            typer.echo(line)
            if number % 10_000 == 0:
                _progress("all tables", number)


@contextlib.contextmanager
def _opened(file: Path) -> Iterator[tuple[Store, PenumbraSpec]]:
    spec = load_with_store(file, os.environ)
    with contextlib.closing(Store(spec.store_url)) as store:
        yield store, spec


@contextlib.contextmanager
def _told_errors() -> Iterator[None]:
    """An error is one line on standard error, and exit status 1."""
    try:
        yield
    except (DeploymentsError, OSError) as error:
        Console(stderr=True, soft_wrap=True).print(f"error: {error}", style="red", markup=False)
        raise typer.Exit(1) from error


@contextlib.contextmanager
def _leading(store: Store) -> Iterator[None]:
    """Have the right to write, which a process that has just crashed may still have for a while."""
    _take_lead(store, _REPAIR_SECONDS)
    try:
        yield
    finally:
        store.release()


def _take_lead(store: Store, seconds: float) -> None:
    deadline = time.monotonic() + _WAIT_SECONDS
    while not store.acquire(uuid.uuid4().hex, "penumbra store", seconds):
        if time.monotonic() > deadline:
            raise Conflict("another control process leads this store: stop it first")
        time.sleep(0.5)


def _hold_for_good(url: str) -> None:
    """Let no process lead the present store, which is to be put aside, in place of the copy."""
    with contextlib.suppress(StoreUnavailable), contextlib.closing(Store(url)) as store:
        _take_lead(store, _FOR_GOOD_SECONDS)  # one that is damaged is led by none


def _require_stopped(spec: PenumbraSpec) -> None:
    address = local_host(spec.control.host), spec.control.port
    with contextlib.suppress(OSError), socket.create_connection(address, _CONNECT_SECONDS):
        raise Conflict(
            f"a process answers at {address[0]}:{address[1]}, where the control process listens:"
            " stop it first (`penumbra down`)"
        )


def _show(found: Verified, as_json: bool) -> None:
    if as_json:
        view = {
            "events": found.events,
            "reports": found.reports,
            "bad_events": [
                {"epoch": each.epoch, "model": each.model, "kind": each.kind, "why": each.problem}
                for each in found.bad_events
            ],
            "bad_reports": [{"id": id_, "why": why} for id_, why in found.bad_reports.items()],
            "bad_segments": [
                {"run": run, "first": first, "why": why} for run, first, why in found.bad_segments
            ],
        }
        typer.echo(json.dumps(view, indent=2, ensure_ascii=False))
        return
    for each in found.bad_events:
        typer.echo(f"{each.model or 'every model'}: {each.text}")
    for number, problem in found.bad_reports.items():
        typer.echo(f"report {number} cannot be read: {problem}")
    for run, first, problem in found.bad_segments:
        typer.echo(f"the reports of {run} from {first} on cannot be read: {problem}")
    problems = (*found.bad_events, *found.bad_reports, *found.bad_segments)
    typer.echo(
        f"{found.events} events and {found.reports} reports were read, {len(problems)} problems."
    )


def _progress(table: str, rows: int) -> None:
    _line(f"{table}: {rows} rows")


def _copy_progress(done: int, pages: int) -> None:
    _line(f"{done} of {pages} pages")


def _line(text: str) -> None:
    """Show progress to a person only, on one line of the terminal."""
    if sys.stderr.isatty():
        typer.echo(f"\r{text}", err=True, nl=False)
