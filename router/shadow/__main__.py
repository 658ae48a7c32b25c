"""Entry point of a comparator process: `python -m router.shadow --settings FILE`."""

import argparse
import os
import sys
from pathlib import Path

import uvloop
from pydantic import ValidationError

from monitoring.logs import configure_logs
from router.shadow.server import run_comparator
from router.shadow.settings import ShadowSettings

TOKEN_VARIABLE = "PENUMBRA_GATEWAY_TOKEN"  # noqa: S105 -- the name, not the token


def main() -> int:
    """Run one comparator process; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m router.shadow", description=__doc__)
    parser.add_argument("--settings", type=Path, required=True, help="ShadowSettings as JSON")
    path = parser.parse_args().settings
    try:
        settings = ShadowSettings.model_validate_json(path.read_bytes())
    except OSError as error:
        return _complain(f"{path}: {error.strerror}")
    except ValidationError as error:
        lines = [
            f"{path}: {'.'.join(map(str, item['loc'])) or 'settings'}: {item['msg']}"
            for item in error.errors()
        ]
        return _complain("\n".join(lines))
    configure_logs(settings.comparator_id)
    try:
        uvloop.run(run_comparator(settings, os.environ.get(TOKEN_VARIABLE)))
    except ExceptionGroup as errors:
        cannot_bind, other = errors.split(OSError)
        if other is not None or cannot_bind is None:
            raise
        return _complain(_first(cannot_bind))
    return 0


def _first(errors: ExceptionGroup[OSError]) -> str:
    error = errors.exceptions[0]
    return _first(error) if isinstance(error, ExceptionGroup) else str(error.strerror or error)


def _complain(message: str) -> int:
    print(message, file=sys.stderr)  # noqa: T201 -- read by a person
    return 2


if __name__ == "__main__":
    sys.exit(main())
