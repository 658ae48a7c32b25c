"""`state.json`: the processes of a running `penumbra up`, for `status`, `down` and tests.

Only the supervisor writes it, whole and atomically; any process may read it.
"""

from enum import StrEnum
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from penumbra.router.settings import ClientTlsSettings
from penumbra.serve.errors import NotRunning, StateUnreadable
from penumbra.serve.processes import find_process

STATE_FILE = "state.json"

_STRICT = ConfigDict(extra="forbid", frozen=True)


class Phase(StrEnum):
    """Phase of one process or variant."""

    WAITING = "waiting"
    LOADING = "loading"
    WARMING = "warming"
    READY = "ready"
    RESTARTING = "restarting"
    UNREACHABLE = "unreachable"
    FAILED = "failed"


class ProcessRecord(BaseModel):
    """One process that the supervisor started."""

    model_config = _STRICT

    name: str
    """control, comparator, gateway-0, ..., fleet."""
    pid: int
    start_time: float
    """With `pid`, the process's identity: ids are used again."""
    phase: Phase
    log: str
    url: str | None = None
    """Base URL of its health checks."""
    restarts: int = 0


class VariantRecord(BaseModel):
    """One variant, hosted or external."""

    model_config = _STRICT

    model: str
    variant: str
    url: str
    ca_file: str | None = None
    """Certificates that sign an external https server's; None: the system's."""
    is_hosted: bool
    phase: Phase
    replicas: int | None = None
    """Replicas that run; None for an external server."""
    addresses: dict[str, str] = {}
    """Number of a hosted replica -> `HOST:PORT` of its own, where that is known."""
    message: str = ""
    problems: tuple[str, ...] = ()
    """Ways in which what it serves contradicts the configuration, so that requests to it fail."""
    warnings: tuple[str, ...] = ()
    log: str | None = None
    source: str | None = None
    scheme: str | None = None
    definition: str | None = None
    """Digest of a hosted variant's settings."""


class RunState(BaseModel):
    """State of one running installation."""

    model_config = _STRICT

    pid: int
    start_time: float
    config: str
    is_ready: bool
    """Everything has been ready once."""
    gateway_url: str
    admin_url: str
    control_tls: ClientTlsSettings = ClientTlsSettings()
    """For an `admin_url` of https."""
    processes: tuple[ProcessRecord, ...] = ()
    variants: tuple[VariantRecord, ...] = ()

    def process(self, name: str) -> ProcessRecord:
        """The record of one process.

        Raises:
            KeyError: It was not started.
        """
        for record in self.processes:
            if record.name == name:
                return record
        raise KeyError(name)


def write_state(path: Path, state: RunState) -> None:
    """Replace the state file in one step."""
    new = path.with_suffix(".new")
    new.write_text(state.model_dump_json(indent=2) + "\n")
    new.replace(path)


def read_state(path: Path) -> RunState:
    """The state file as it is, whether or not its supervisor still runs.

    Raises:
        NotRunning: There is none.
        StateUnreadable: It is not what `write_state` writes.
    """
    try:
        return RunState.model_validate_json(path.read_bytes())
    except FileNotFoundError as error:
        raise NotRunning(f"nothing runs here: there is no {path}") from error
    except ValidationError as error:
        raise StateUnreadable(f"{path} is damaged: {error.errors()[0]['msg']}") from error


def read_running(path: Path) -> RunState:
    """The state of a supervisor that runs now.

    Raises:
        NotRunning: There is no state file, or its supervisor is gone.
        StateUnreadable: The file is damaged.
    """
    state = read_state(path)
    if find_process(state.pid, state.start_time) is None:
        raise NotRunning(
            f"`penumbra up` (process {state.pid}) is not running any more; it left {path}"
        )
    return state
