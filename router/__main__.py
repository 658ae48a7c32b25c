"""Entry point of a gateway process: `python -m penumbra.router --settings FILE`."""

import os
import sys

import uvloop

from penumbra.monitoring.logs import configure_logs
from penumbra.monitoring.tracing.export import tracing
from penumbra.monitoring.tracing.settings import TracingMisconfigured
from penumbra.router.entry import TOKEN_VARIABLE, SettingsUnreadable, complain, read_settings
from penumbra.router.hangups import ignore_hangups
from penumbra.router.secret_values import SecretUnreadable, secret_of
from penumbra.router.server import run_gateway
from penumbra.router.settings import GatewaySettings


def read_token() -> str | None:
    """The bearer token for the control process; None if none is given."""
    return secret_of(os.environ, TOKEN_VARIABLE)


def main() -> int:
    """Run one gateway process; returns the exit status."""
    ignore_hangups()
    try:
        settings = read_settings(GatewaySettings, "python -m penumbra.router", __doc__)
    except SettingsUnreadable as error:
        return complain(str(error))
    configure_logs(settings.gateway_id, sees_content=True)
    try:
        with tracing(os.environ, "penumbra-gateway", settings.gateway_id) as tracer:
            uvloop.run(run_gateway(settings, read_token, tracer))
    except (TracingMisconfigured, SecretUnreadable) as error:
        return complain(str(error))
    except OSError as error:
        return complain(str(error.strerror or error))
    return 0


if __name__ == "__main__":
    sys.exit(main())
