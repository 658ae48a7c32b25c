"""State folder of one installation: its files, and the lock of the process that uses it."""

import fcntl
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import TextIO

from penumbra.deployments.config.hosted_engines import STATUS
from penumbra.router.secret_values import FILE_SUFFIX, SecretUnreadable, secret_of
from penumbra.serve.errors import AlreadyRunning, ConfigurationInvalid
from penumbra.serve.supervisor.state import STATE_FILE

GATEWAY_TOKEN = "PENUMBRA_GATEWAY_TOKEN"  # noqa: S105 -- the name, not the token
COMPARATOR_TOKEN = "PENUMBRA_COMPARATOR_TOKEN"  # noqa: S105 -- likewise
TOKENS = {
    COMPARATOR_TOKEN: "comparator-token",
    "PENUMBRA_ADMIN_TOKEN": "admin-token",
    GATEWAY_TOKEN: "gateway-token",
    "PENUMBRA_ALERT_TOKEN": "alert-token",
}
"""Environment variable -> file in the state folder that holds it when the variable is not set."""

_NEVER_MADE = ("PENUMBRA_OPERATOR_TOKEN", "PENUMBRA_VIEWER_TOKEN", "PENUMBRA_STORE_URL")
CONTROL_SECRETS = frozenset({*TOKENS, *_NEVER_MADE, *(name + FILE_SUFFIX for name in _NEVER_MADE)})
"""Secrets that the control process reads from its environment, or from files that this names. The
tokens that may be made it gets as values, wherever they came from."""


class StateFolder:
    """Paths inside a state folder (by default `.penumbra`).

    Args:
        path: The folder; made when it is first locked.
    """

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self.state = self.path / STATE_FILE
        self.logs = self.path / "logs"
        self.replicas = self.path / "replicas.json"
        self.engines_status = self.path / STATUS
        self._lock: TextIO | None = None

    def lock(self) -> None:
        """Claim the folder for this process; released when the process ends, however it ends.

        Raises:
            AlreadyRunning: Another process holds it.
        """
        self.logs.mkdir(parents=True, exist_ok=True)
        # Left open: the lock is the open file, so it goes when the process does.
        lock = (self.path / "lock").open("a+")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            lock.seek(0)
            owner = lock.read().strip() or "another process"
            lock.close()
            raise AlreadyRunning(
                f"{self.path} is in use by a running `penumbra up` (process {owner})."
                " Stop it with `penumbra down`, or set another state_dir."
            ) from error
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        self._lock = lock

    def unlock(self) -> None:
        """Give the folder back."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def log(self, name: str) -> Path:
        """The log of one process or variant."""
        return self.logs / f"{name}.log"

    def private_file(self, name: str, content: str) -> Path:
        """Write a file that only its owner may read."""
        path = self.path / name
        path.unlink(missing_ok=True)
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(content)
        return path

    def tokens(self, environment: Mapping[str, str]) -> dict[str, str]:
        """The tokens of the control process: from the environment, else from the folder.

        A token is made once and stored, so that clients survive a restart. Where gateways have a
        token already and comparators none, none is made for these: comparators elsewhere may show
        the gateways' token, as all did before.

        Raises:
            ConfigurationInvalid: A token is given in two ways, or its file cannot be read.
        """
        names = dict(TOKENS)
        if self._is_shared(environment):
            del names[COMPARATOR_TOKEN]
        return {
            name: _given(environment, name) or self._token(file) for name, file in names.items()
        }

    def _is_shared(self, environment: Mapping[str, str]) -> bool:
        def is_given(name: str) -> bool:
            return bool(_given(environment, name)) or (self.path / TOKENS[name]).exists()

        return is_given(GATEWAY_TOKEN) and not is_given(COMPARATOR_TOKEN)

    def _token(self, file: str) -> str:
        path = self.path / file
        if path.exists():
            return path.read_text().strip()
        token = secrets.token_urlsafe(32)
        self.private_file(file, token + "\n")
        return token


def _given(environment: Mapping[str, str], name: str) -> str | None:
    try:
        return secret_of(environment, name)
    except SecretUnreadable as error:
        raise ConfigurationInvalid(str(error)) from error


def tail(path: Path, lines: int = 20) -> str:
    """The last lines of a log; empty if there is none."""
    try:
        with path.open("rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - 64 * 1024))
            text = file.read().decode(errors="replace")
    except FileNotFoundError:
        return ""
    return "\n".join(text.splitlines()[-lines:])
