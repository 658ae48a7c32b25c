"""Entry point of a gateway process: `python -m router --settings FILE`."""

import argparse
import os
import sys
from pathlib import Path

import uvloop
from pydantic import ValidationError

from monitoring.logs import configure_logs
from router.server import run_gateway
from router.settings import GatewaySettings

TOKEN_VARIABLE = "PENUMBRA_GATEWAY_TOKEN"  # noqa: S105 -- the name, not the token


def main() -> int:
    """Run one gateway process; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m router", description=__doc__)
    parser.add_argument("--settings", type=Path, required=True, help="GatewaySettings as JSON")
    path = parser.parse_args().settings
    try:
        settings = GatewaySettings.model_validate_json(path.read_bytes())
    except OSError as error:
        return _complain(f"{path}: {error.strerror}")
    except ValidationError as error:
        lines = [
            f"{path}: {'.'.join(map(str, item['loc'])) or 'settings'}: {item['msg']}"
            for item in error.errors()
        ]
        return _complain("\n".join(lines))
    configure_logs(settings.gateway_id)
    try:
        uvloop.run(run_gateway(settings, os.environ.get(TOKEN_VARIABLE)))
    except OSError as error:
        return _complain(str(error.strerror or error))
    return 0


def _complain(message: str) -> int:
    print(message, file=sys.stderr)  # noqa: T201 -- read by a person, before logs are set up
    return 2


if __name__ == "__main__":
    sys.exit(main())
