"""Entry point of a comparator process: `python -m penumbra.router.shadow --settings FILE`."""

import os
import sys

import uvloop

from penumbra.monitoring.logs import configure_logs
from penumbra.monitoring.tracing.export import tracing
from penumbra.monitoring.tracing.settings import TracingMisconfigured
from penumbra.router.entry import (
    COMPARATOR_TOKEN_VARIABLE,
    TOKEN_VARIABLE,
    SettingsUnreadable,
    complain,
    read_settings,
)
from penumbra.router.hangups import ignore_hangups
from penumbra.router.secret_values import SecretUnreadable, secret_of
from penumbra.router.shadow.server import run_comparator
from penumbra.router.shadow.settings import ShadowSettings


def main() -> int:
    """Run one comparator process and return its exit status."""
    ignore_hangups()
    try:
        settings = read_settings(ShadowSettings, "python -m penumbra.router.shadow", __doc__)
    except SettingsUnreadable as error:
        return complain(str(error))
    configure_logs(settings.comparator_id, sees_content=True)
    try:
        token = secret_of(os.environ, COMPARATOR_TOKEN_VARIABLE)
        token = token or secret_of(os.environ, TOKEN_VARIABLE)
        with tracing(os.environ, "penumbra-comparator", settings.comparator_id) as tracer:
            uvloop.run(run_comparator(settings, token, tracer))
    except (TracingMisconfigured, SecretUnreadable) as error:
        return complain(str(error))
    except OSError as error:
        return complain(str(error.strerror or error))
    except ExceptionGroup as errors:
        cannot_bind, other = errors.split(OSError)
        if other is not None or cannot_bind is None:
            raise
        return complain(_first(cannot_bind))
    return 0


def _first(errors: ExceptionGroup[OSError]) -> str:
    error = errors.exceptions[0]
    return _first(error) if isinstance(error, ExceptionGroup) else str(error.strerror or error)


if __name__ == "__main__":
    sys.exit(main())
