"""Errors of hosting and the command line, each with a stable `code`.

ServeError
├── ConfigurationInvalid      the configuration asks for something this machine cannot give
├── PortInUse                 a configured port is taken
├── AlreadyRunning            this state directory belongs to a running `penumbra up`
├── NotRunning                nothing runs in this state directory
├── StateUnreadable           state.json is damaged
├── VariantFailed             an engine died while loading, or never became ready
├── WarmUpFailed              an engine loaded but does not answer as it must
├── OutputUnusable            files cannot be written where they should go
└── ProcessFailed             the control process or a gateway did not come up

The command line prints `message` and exits with `EXIT_CODE[code]`.
"""

from typing import ClassVar

EXIT_CODE: dict[str, int] = {
    "configuration_invalid": 2,
    "port_in_use": 2,
    "already_running": 2,
    "output_unusable": 2,
    "not_running": 3,
    "state_unreadable": 1,
    "variant_failed": 1,
    "warm_up_failed": 1,
    "process_failed": 1,
    "serve_error": 1,
}


class ServeError(Exception):
    """Base of all errors of this package.

    Args:
        message: One sentence or more for the operator: what was found, and what would be right.
        log_tail: Last lines of the log that says why, if there is one.
    """

    code: ClassVar[str] = "serve_error"

    def __init__(self, message: str, log_tail: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.log_tail = log_tail


class ConfigurationInvalid(ServeError):
    """The configuration asks for something this machine cannot give."""

    code: ClassVar[str] = "configuration_invalid"


class PortInUse(ServeError):
    """A configured port is taken by another process."""

    code: ClassVar[str] = "port_in_use"


class AlreadyRunning(ServeError):
    """The state directory belongs to a running `penumbra up`."""

    code: ClassVar[str] = "already_running"


class NotRunning(ServeError):
    """Nothing runs in the state directory."""

    code: ClassVar[str] = "not_running"


class StateUnreadable(ServeError):
    """`state.json` exists but is not what `penumbra up` writes."""

    code: ClassVar[str] = "state_unreadable"


class VariantFailed(ServeError):
    """An engine died while loading, or did not become ready in time."""

    code: ClassVar[str] = "variant_failed"


class WarmUpFailed(ServeError):
    """An engine is up but does not decode or score as the gateway needs it."""

    code: ClassVar[str] = "warm_up_failed"


class ProcessFailed(ServeError):
    """The control process or a gateway process did not come up."""

    code: ClassVar[str] = "process_failed"


class OutputUnusable(ServeError):
    """A command cannot write its files where it was told to."""

    code: ClassVar[str] = "output_unusable"
