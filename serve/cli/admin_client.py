"""Client of the admin API: finds the control process and its token, and words errors for people."""

import getpass
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx

from penumbra.deployments.config.loader import load_in_force
from penumbra.deployments.config.spec import PenumbraSpec
from penumbra.deployments.errors import ConfigInvalid
from penumbra.router.link.link_tls import verification
from penumbra.router.secret_values import SecretUnreadable, secret_of
from penumbra.router.settings import ClientTlsSettings

ACTOR_VARIABLE = "PENUMBRA_ACTOR"
STATE_DIR_VARIABLE = "PENUMBRA_STATE_DIR"
TOKEN_VARIABLES = ("PENUMBRA_TOKEN", "PENUMBRA_ADMIN_TOKEN")
"""Variables with the token that commands show; the first that is set. The first is meant for the
token of an identity, the second is that of the control process."""
URL_VARIABLE = "PENUMBRA_ADMIN_URL"
TLS_VARIABLES = "PENUMBRA_CONTROL_"
"""Beginning of the variables that name the files for a control process of https."""
_TLS_NAMES = {
    "ca_file": "CA_FILE",
    "certificate": "CLIENT_CERTIFICATE",
    "key": "CLIENT_KEY",
}
NO_FILES = ClientTlsSettings()

_TIMEOUT_SECONDS = 40.0


EXIT_REFUSED, EXIT_MISUSED, EXIT_UNREACHABLE, EXIT_NOT_ALLOWED = 1, 2, 4, 5
_NOT_ALLOWED = frozenset({401, 403})


class AdminError(Exception):
    """A command cannot be carried out; the message is for the person who gave it.

    Args:
        message: What was found, and what would be right.
        code: Stable name of the error, by default that of its class.
    """

    exit_status = EXIT_REFUSED

    def __init__(self, message: str, code: str = "") -> None:
        super().__init__(message)
        self.code = code or _CODES[self.exit_status]


class Misused(AdminError):
    """The command line makes no sense."""

    exit_status = EXIT_MISUSED


class NoAnswer(AdminError):
    """The control process does not answer at its address, or its address is not known."""

    exit_status = EXIT_UNREACHABLE


class NotAllowed(AdminError):
    """There is no token, or it may not do this."""

    exit_status = EXIT_NOT_ALLOWED


_CODES = {
    EXIT_REFUSED: "refused",
    EXIT_MISUSED: "usage",
    EXIT_UNREACHABLE: "unreachable",
    EXIT_NOT_ALLOWED: "not_allowed",
}


class AdminClient:
    """HTTP client for one control process.

    Args:
        url: Base URL of the admin API.
        token: Its bearer token.
        actor: Name under which changes are recorded.
        tls: Files by which a control process of https is verified.

    Raises:
        ValueError: One of them is no use.
    """

    def __init__(self, url: str, token: str, actor: str, tls: ClientTlsSettings = NO_FILES) -> None:
        self._url = url
        self._client = httpx.Client(
            base_url=f"{url.rstrip('/')}/admin/v1",
            # As bytes: names beyond ASCII are sent in UTF-8.
            headers={
                b"authorization": f"Bearer {token}".encode(),
                b"x-penumbra-actor": actor.encode(),
            },
            timeout=_TIMEOUT_SECONDS,
            verify=verification(url, tls),
            trust_env=False,  # a proxy of the environment must not see the token
        )

    def close(self) -> None:
        """Close its connections."""
        self._client.close()

    def get(self, path: str, params: Mapping[str, Any] | None = None) -> Any:
        """Read from a path of the admin API.

        Raises:
            AdminError: It was refused, or there is no answer.
        """
        given = {name: value for name, value in (params or {}).items() if value is not None}
        return self._answer(self._client.build_request("GET", path, params=given))

    def change(
        self, method: str, path: str, body: Mapping[str, Any], epoch: int | None = None
    ) -> Any:
        """Send a change; with `epoch`, only if nothing has changed since that epoch.

        Raises:
            AdminError: It was refused, or there is no answer.
        """
        headers = {} if epoch is None else {"if-match": f'"{epoch}"'}
        request = self._client.build_request(method, path, json=dict(body), headers=headers)
        return self._answer(request)

    def delete(self, path: str, params: Mapping[str, Any]) -> Any:
        """Take away what a path of the admin API names.

        Raises:
            AdminError: It was refused, or there is no answer.
        """
        return self._answer(self._client.build_request("DELETE", path, params=dict(params)))

    def _answer(self, request: httpx.Request) -> Any:
        try:
            response = self._client.send(request)
        except httpx.HTTPError as error:
            raise NoAnswer(
                f"no answer from the control process at {self._url} ({error});"
                " is it up? (penumbra status)"
            ) from error
        if response.is_success:
            return response.json()
        raise _refusal(response)


def flag_path(model: str, verb: str = "") -> str:
    """The path of a model's flag, or of an action on it."""
    return f"/flags/{quote(model)}{'/' if verb else ''}{verb}"


def connect(url: str | None, config: Path | None = None) -> AdminClient:
    """A client for the control process at `url`, of a configuration, or of this machine.

    Args:
        url: Base URL of the admin API; None: as the configuration or the state folder says.
        config: Configuration of the installation; None: the state folder is in PENUMBRA_STATE_DIR,
            or is `.penumbra`.

    Raises:
        AdminError: Its address or its token is not known, or the configuration cannot be read.
    """
    spec = None if config is None else _load(config)
    state_dir = spec.state_dir if spec else Path(os.environ.get(STATE_DIR_VARIABLE, ".penumbra"))
    name = actor()
    if not name.isprintable():
        raise Misused(f"{ACTOR_VARIABLE}: found {name!r}, wanted printable characters")
    # A configuration that is named goes before the address in the environment.
    found = url or (
        address_of(spec) if spec else os.environ.get(URL_VARIABLE) or _running(state_dir)
    )
    try:
        return AdminClient(found, token_of(state_dir), name, tls_of(spec, state_dir))
    except (httpx.InvalidURL, ValueError) as error:
        raise Misused(f"{found}: {error}, wanted http[s]://HOST:PORT") from error


def tls_of(spec: PenumbraSpec | None, state_dir: Path) -> ClientTlsSettings:
    """The files for a control process of https: of the environment, else of the installation.

    Args:
        spec: The installation's configuration; None: its state folder says.
        state_dir: That folder.

    Raises:
        ValueError: A certificate is named without its key.
    """
    own = {
        field: os.environ[f"{TLS_VARIABLES}{name}"]
        for field, name in _TLS_NAMES.items()
        if os.environ.get(f"{TLS_VARIABLES}{name}")
    }
    known = spec.control.client_tls if spec else _running_tls(state_dir)
    return ClientTlsSettings.model_validate({**known.model_dump(), **own})


def _running_tls(state_dir: Path) -> ClientTlsSettings:
    try:
        found = json.loads((state_dir / "state.json").read_text(encoding="utf-8"))
        return ClientTlsSettings.model_validate(found["control_tls"])
    except (OSError, ValueError, KeyError, TypeError):
        return NO_FILES  # it does not run, or was started by an earlier release


def _load(config: Path) -> PenumbraSpec:
    try:
        return load_in_force(config)
    except ConfigInvalid as error:
        raise Misused(error.message) from error


def address_of(spec: PenumbraSpec) -> str:
    """Base URL of a configuration's control process: the one that runs, else as configured."""
    try:
        return _running(spec.state_dir)
    except NoAnswer:
        return spec.control_url


def actor() -> str:
    """The actor of changes: PENUMBRA_ACTOR, else the name of the system's user."""
    return os.environ.get(ACTOR_VARIABLE) or getpass.getuser()


def _running(state_dir: Path) -> str:
    path = state_dir / "state.json"
    try:
        found = json.loads(path.read_text(encoding="utf-8"))["admin_url"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise NoAnswer(
            f"found no running Penumbra in {state_dir} (no admin_url in {path.name}):"
            f" start one with `penumbra up`, or name it with -f or --url or {URL_VARIABLE}"
        ) from error
    return str(found)


def token_of(state_dir: Path) -> str:
    """The token to show: of the environment, else the admin token of a state folder.

    Raises:
        AdminError: There is none, or it cannot be read.
    """
    try:
        found = (secret_of(os.environ, name) for name in TOKEN_VARIABLES)
        token = next((each for each in found if each), None)
    except SecretUnreadable as error:
        raise Misused(str(error)) from error
    if token:
        return token.strip()
    path = state_dir / "admin-token"
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise NotAllowed(
            f"found neither {' nor '.join(TOKEN_VARIABLES)} nor a readable {path}, wanted a token"
        ) from error


def _refusal(response: httpx.Response) -> AdminError:
    kind = NotAllowed if response.status_code in _NOT_ALLOWED else AdminError
    try:
        error = response.json()["error"]
        return kind(f"{error['message']} ({error['code']})", str(error["code"]))
    except (ValueError, KeyError, TypeError):
        return kind(f"the control process answered {response.status_code}")
