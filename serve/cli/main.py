"""The `penumbra` command: knows its sub-commands by name and imports one when it is run.

`penumbra --help` therefore answers at once: it imports neither Ray nor vLLM nor the web stack.
"""

import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.metadata import version
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperCommand, TyperGroup

from penumbra.serve.errors import EXIT_CODE, ServeError

COMMANDS: dict[str, tuple[str, str]] = {
    "up": ("penumbra.serve.cli.up:up", "Start the variants, the control process and the gateways."),
    "down": ("penumbra.serve.cli.up:down", "Stop a running `penumbra up`."),
    "status": ("penumbra.serve.cli.up:status", "Show what runs, and how it is."),
    "gateway": (
        "penumbra.serve.cli.gateway:app",
        "Run one gateway process in the foreground; kill a model at gateways themselves.",
    ),
    "control": (
        "penumbra.serve.cli.up:control",
        "Run one control process in the foreground, to lead or to stand by.",
    ),
    "flags": ("penumbra.serve.cli.flags:app", "Show and change who gets which variant."),
    "rollout": (
        "penumbra.serve.cli.rollout:app",
        "Bring a candidate from shadow to all traffic, safely.",
    ),
    "apply": (
        "penumbra.serve.cli.apply:apply",
        "Put a changed configuration into force while everything runs.",
    ),
    "store": (
        "penumbra.serve.cli.store:app",
        "Verify, repair, copy and export the control process's store.",
    ),
    "check": (
        "penumbra.serve.cli.check:check",
        "Say what stands in the way of a configuration; starts nothing.",
    ),
    "keys": ("penumbra.serve.cli.keys:app", "Make API keys."),
    "access": (
        "penumbra.serve.cli.access:app",
        "Say who may use the admin API: people and tools, each with tokens of its own.",
    ),
    "dashboards": (
        "penumbra.serve.cli.monitoring_files:dashboards",
        "Write the Grafana dashboards into a folder.",
    ),
    "rules": (
        "penumbra.serve.cli.monitoring_files:rules",
        "Write the Prometheus rules and example configurations into a folder.",
    ),
    "quantize": (
        "penumbra.serve.cli.quantize:quantize",
        "Make a quantized build of a model folder.",
    ),
}
"""Sub-command -> (import path of its function or Typer application, one line of help)."""


class _LazyCommand(TyperCommand):
    """Stands for a sub-command until it is run."""

    def __init__(self, name: str, target: str, help_text: str) -> None:
        super().__init__(name, help=help_text)
        self._target = target

    def make_context(self, *args: Any, **kwargs: Any) -> Any:
        return _load(self.name or "", self._target).make_context(*args, **kwargs)


class _LazyGroup(TyperGroup):
    """Lists `COMMANDS` without importing them."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> TyperCommand | None:
        if cmd_name not in COMMANDS:
            return None
        return _LazyCommand(cmd_name, *COMMANDS[cmd_name])


def _load(name: str, target: str) -> Any:
    module, _, attribute = target.partition(":")
    found = getattr(import_module(module), attribute)
    if not isinstance(found, typer.Typer):
        function, found = found, typer.Typer(add_completion=False, pretty_exceptions_enable=False)
        found.command(name)(function)
    return typer.main.get_command(found)


app = typer.Typer(
    cls=_LazyGroup, add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False
)


def _show_version(is_wanted: bool) -> None:
    if is_wanted:
        typer.echo(f"penumbra {version('penumbra-gateway')}")
        raise typer.Exit


@app.callback()
def penumbra(
    _version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """Serve a model and its quantized builds side by side, and switch between them safely."""


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run a command line and leave the process with its exit status.

    Args:
        arguments: Without the program's name; None takes the process's own.
    """
    try:
        app(args=list(arguments) if arguments is not None else None, prog_name="penumbra")
    except ServeError as error:
        if error.log_tail:
            sys.stderr.write(f"{error.log_tail}\n\n")
        sys.stderr.write(f"Error: {error.message}\n")
        sys.exit(EXIT_CODE[error.code])
    sys.exit(0)
