"""Generates the dashboards' JSON: `python -m penumbra.monitoring.dashboards`.

Operators need no SDK: `penumbra dashboards --out DIR` copies what this writes.
"""

import argparse
import json
from pathlib import Path

try:
    from grafana_foundation_sdk.cog.encoder import JSONEncoder
    from grafana_foundation_sdk.models.dashboard import Dashboard
except ModuleNotFoundError as error:
    raise SystemExit(
        f"{error.name} is not installed: it comes with the extra `dev` of a clone."
        " `penumbra dashboards --out DIR` writes the dashboards that ship."
    ) from error

from penumbra.monitoring.dashboards import engines, quality, rollout, traffic
from penumbra.monitoring.dashboards.frame import draw
from penumbra.monitoring.package_files import RUNBOOKS

BOARDS = (rollout.BOARD, quality.BOARD, traffic.BOARD, engines.BOARD)
FOLDER = Path(__file__).with_name("json")


def render(dashboard: Dashboard) -> str:
    """A dashboard as JSON, the same bytes for the same dashboard."""
    return json.dumps(dashboard, cls=JSONEncoder, indent=2, ensure_ascii=False) + "\n"


def render_all(runbooks: str = RUNBOOKS) -> dict[str, str]:
    """All dashboards as JSON, by file name."""
    return {f"{board.name}.json": render(draw(board, runbooks)) for board in BOARDS}


def main() -> None:
    """Write the files of all dashboards."""
    parser = argparse.ArgumentParser(
        prog="python -m penumbra.monitoring.dashboards", description=__doc__
    )
    parser.add_argument("--runbooks", default=RUNBOOKS, help="URL of the folder docs/runbooks")
    parser.add_argument("--out", type=Path, default=FOLDER, help="folder for the JSON files")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    for name, content in render_all(arguments.runbooks.rstrip("/")).items():
        (arguments.out / name).write_text(content, encoding="utf-8")


if __name__ == "__main__":
    main()
