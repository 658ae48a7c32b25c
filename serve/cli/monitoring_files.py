"""`penumbra dashboards` and `penumbra rules`: write the monitoring files that ship with Penumbra.

Neither needs a running installation, Grafana's SDK or a clone of the repository.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from penumbra.monitoring.package_files import read_configurations, read_dashboards, read_rules
from penumbra.serve.errors import ConfigurationInvalid, OutputUnusable

Out = Annotated[
    Path, typer.Option("--out", "-o", help="Folder for the files; made if it is missing.")
]
Runbooks = Annotated[
    str | None, typer.Option(help="URL of the folder docs/runbooks, for the links to runbooks.")
]

# Without quotes, spaces and `#`, which would end the value in JSON or YAML.
_URL = re.compile(r"https?://[^\s\"'#\\]+")


def dashboards(out: Out, runbooks: Runbooks = None) -> None:
    """Write the four Grafana dashboards as JSON. Files of the same names are replaced."""
    _write(out, read_dashboards(_check_url(runbooks)))


def rules(out: Out, runbooks: Runbooks = None) -> None:
    """Write the Prometheus rules, and configurations to start from. Replaces files of those names.

    The rules go into the folder `rules` below --out; prometheus.yaml beside it loads them, and
    alertmanager.yaml sends the alerts that roll back to the control process.
    """
    rule_files = read_rules(_check_url(runbooks))
    _write(out, {f"rules/{name}": text for name, text in rule_files.items()})
    _write(out, read_configurations())


def _check_url(runbooks: str | None) -> str | None:
    if runbooks is None:
        return None
    if not _URL.fullmatch(runbooks):
        raise ConfigurationInvalid(
            f'--runbooks: found "{runbooks}", wanted a URL that begins with http:// or https://'
            " and has no space, quote, backslash or # in it"
        )
    return runbooks.rstrip("/")


def _write(folder: Path, texts: Mapping[str, str]) -> None:
    _make_folder(folder)
    for name, text in texts.items():
        file = folder / name
        _make_folder(file.parent)
        try:
            file.write_text(text, encoding="utf-8")
        except OSError as error:
            raise OutputUnusable(f"--out: cannot write {file}: {error.strerror}") from error
        typer.echo(f"wrote {file}")


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        raise OutputUnusable(f"--out: found a file at {folder}, wanted a folder") from error
    except OSError as error:
        raise OutputUnusable(f"--out: cannot make the folder {folder}: {error.strerror}") from error
